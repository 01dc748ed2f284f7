"""`Kept`: what a participant in a deletion keeps, and why. Plain data, without imports."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Kept"]


@dataclass(frozen=True, slots=True)
class Kept:
    """Rows that a deletion leaves, by law or by a setting.

    Attributes:
        amount: How many.
        reason: Why, in one line, as the user may read it: it is in the receipt, the job's result
            and the mail that confirms the deletion.
        anonymized: Whether nothing in them leads to the user any longer. The mail leaves them out.
    """

    amount: int
    reason: str
    anonymized: bool = False
