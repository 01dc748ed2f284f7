"""Who uses the board, and what they may do: three roles, and one table of actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = ["NEEDED", "Action", "Identity", "Role"]


class Role(StrEnum):
    """What a reader is trusted with; each role includes what the roles before it may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Action(StrEnum):
    """Everything that can be done on the board; each route needs one of them."""

    LOOK = "look"
    SEARCH = "search"
    SCRAPE = "scrape"
    RETRY = "retry"
    PROMOTE = "promote"
    ADD = "add"
    PAUSE = "pause"
    RESUME = "resume"
    RETURN = "return"
    EDIT = "edit"
    REMOVE = "remove"
    DISCARD = "discard"
    DRAIN = "drain"
    CLEAN = "clean"
    LIMIT = "limit"
    PRUNE = "prune"
    AUDIT = "audit"


NEEDED: Final[Mapping[Action, Role]] = MappingProxyType(
    {
        Action.LOOK: Role.VIEWER,
        Action.SEARCH: Role.VIEWER,
        Action.SCRAPE: Role.VIEWER,
        Action.RETRY: Role.OPERATOR,
        Action.PROMOTE: Role.OPERATOR,
        Action.ADD: Role.OPERATOR,
        Action.PAUSE: Role.OPERATOR,
        Action.RESUME: Role.OPERATOR,
        Action.RETURN: Role.OPERATOR,
        Action.EDIT: Role.ADMIN,
        Action.REMOVE: Role.ADMIN,
        Action.DISCARD: Role.ADMIN,
        Action.DRAIN: Role.ADMIN,
        Action.CLEAN: Role.ADMIN,
        Action.LIMIT: Role.ADMIN,
        Action.PRUNE: Role.ADMIN,
        Action.AUDIT: Role.ADMIN,
    }
)
"""The lowest role that may do each action.

An operator may do what can be undone; only an admin may remove jobs or change payloads.
"""

_RANK: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Identity:
    """A person who is logged in.

    Attributes:
        name: Their name in the audit log: a login name or an e-mail address, never a secret.
        role: What they are trusted with on the board; None for a person who is logged in to the
            host application and may not see the board.
    """

    name: str
    role: Role | None = None

    def may(self, action: Action) -> bool:
        """Whether their role allows an action."""
        return self.role is not None and _RANK[self.role] >= _RANK[NEEDED[action]]
