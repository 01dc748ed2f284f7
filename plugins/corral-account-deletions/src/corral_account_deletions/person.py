"""Recognizes texts and payloads that are about a user, by e-mail address and id. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote, quote_plus

from corral.inspector import StoredJob

__all__ = ["Person", "as_key"]

DISTINCTIVE: Final = 8
"""An id of so many characters that is no number is nobody else's and nothing else, wherever it
stands.
"""


class Person:
    """Somebody who is to be forgotten.

    Args:
        user_id: Their id.
        email: Their address, or None where nobody knows it.
        user_keys: Names of fields that hold a user's id, as `as_key` spells them.
        others: The ids of other living accounts with this address: none, where it is theirs alone.
            None where nobody could say.
    """

    def __init__(
        self,
        user_id: str,
        email: str | None,
        user_keys: frozenset[str] = frozenset({"userid"}),
        *,
        others: frozenset[str] | None = None,
    ) -> None:
        self._user_id = user_id
        self._others = others
        self._is_distinctive = len(user_id) >= DISTINCTIVE and not user_id.isdecimal()
        self._user_keys = user_keys
        self._address = _pattern(email) if email else None

    def is_addressed_in(self, value: Any) -> bool:
        """Whether a JSON value contains the address, in any case, as it is or URL-encoded.

        `ada@example.org` is not in `nada@example.org`.
        """
        pattern = self._address
        return pattern is not None and any(
            isinstance(each, str) and pattern.search(each) for _, each in _walked(value)
        )

    def is_identified_in(self, value: Any) -> bool:
        """Whether a JSON value has the id: under a name of `user_keys`, or anywhere if distinctive.

        `1` under another name may be anything.
        """
        return any(
            str(each) == self._user_id and (self._is_distinctive or as_key(key) in self._user_keys)
            for key, each in _walked(value)
            if isinstance(each, str | int)
        )

    def is_meant_in(self, message: Any, *texts: Any) -> bool:
        """Whether the address stands in a message or in texts beside it, and means this person.

        Where the message has their id, it does. Where another account has the same address, it
        means that one. Where nobody could say whose the address is, a message that names only
        other users is theirs.

        Args:
            message: A JSON value that may name users: a payload, a result.
            texts: JSON values that belong to it and name nobody by id.
        """
        if not self.is_addressed_in([message, *texts]):
            return False
        if self.is_identified_in(message):
            return True
        if self._others is None:
            return not self._names_a_user(message)
        return not self._others

    def is_in(self, job: StoredJob) -> bool:
        """Whether anything that is stored of a job is about them."""
        message, texts = _parts(job)
        return self.is_identified_in(message) or self.is_meant_in(message, *texts)

    def shares(self, job: StoredJob) -> bool:
        """Whether a job that is not about them has their address, which another account has, too.

        Also where the job names another user, and nobody could say whose the address is.
        """
        message, texts = _parts(job)
        return self.is_addressed_in([message, *texts]) and not self.is_in(job)

    def _names_a_user(self, message: Any) -> bool:
        return any(
            as_key(key) in self._user_keys and isinstance(each, str | int)
            for key, each in _walked(message)
        )

    def left_out_of(self, text: str) -> str:
        """A text without the address."""
        return text if self._address is None else self._address.sub("[e-mail address]", text)


def _parts(job: StoredJob) -> tuple[list[Any], list[Any]]:
    """What is stored of a job: values that may name users by id, and texts."""
    message = [job.data, job.returnvalue, job.progress, job.child_results]
    return message, [job.failed_reason, job.deferred_failure, job.stacktrace, job.logs]


def as_key(name: str) -> str:
    """A field's name as every language spells it: `userId`, `user_id` and `User-ID` are one."""
    return re.sub(r"[\W_]", "", name).casefold()


def _pattern(email: str) -> re.Pattern[str]:
    """The address, where it is a whole one; also after an escape of a URL, or of JSON in a text."""
    spellings = {email, quote(email, safe=""), quote_plus(email, safe="@"), json.dumps(email)[1:-1]}
    before = r"(?:(?<![\w.+-])|(?<=%[0-9A-Fa-f]{2})|(?<=\\[bfnrt]))"
    after = r"(?![\w-]|\.\w)"
    return re.compile(
        f"{before}(?:{'|'.join(map(re.escape, sorted(spellings)))}){after}", re.IGNORECASE
    )


def _walked(value: Any) -> Iterator[tuple[str, Any]]:
    """Every plain value in a JSON value, with the name it stands under; every name, too."""
    left: list[tuple[str, Any]] = [("", value)]
    while left:
        key, each = left.pop()
        if isinstance(each, dict):
            for name, held in each.items():
                yield "", name
                left.append((name, held))
        elif isinstance(each, list | tuple):
            left += [(key, held) for held in each]
        else:
            yield key, each
