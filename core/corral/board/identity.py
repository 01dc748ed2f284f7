"""Who is looking at the board, and what they may do: three roles, and one table of actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

__all__ = ["NEEDED", "Action", "Identity", "Role"]


class Role(StrEnum):
    """What somebody is trusted with; each role may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Action(StrEnum):
    """Everything that can be done on the board."""

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
"""The least role that may do something: what can be undone is an operator's, what takes jobs away
is an admin's.
"""

_RANK: Final = {role: rank for rank, role in enumerate(Role)}


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who is logged in.

    Attributes:
        name: What the audit log calls them: a login name or an address, no secret.
        role: What they are trusted with here; None for somebody who is logged in, and has no
        business on the board.
    """

    name: str
    role: Role | None = None

    def may(self, action: Action) -> bool:
        """Whether they may do something."""
        return self.role is not None and _RANK[self.role] >= _RANK[NEEDED[action]]
