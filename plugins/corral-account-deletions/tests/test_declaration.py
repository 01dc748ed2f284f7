"""What a producer gets, and what the catalog makes of it."""

from __future__ import annotations

import pytest

from corral import PayloadRefused
from corral.testing import DeclarationContract
from corral_account_deletions import account_deletions

GOOD = {"userId": "ada-4711", "requestId": "r1", "requestedAt": "2027-01-01T10:00:00Z"}


class TestDeclaration(DeclarationContract):
    queue = account_deletions
    package = "corral_account_deletions"
    example = GOOD
    not_for_producers = ("sqlalchemy", "aiosqlite", "asyncpg")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("userId", ""),
        ("userId", 7),
        ("userId", "x" * 129),
        ("requestId", ""),
        ("requestedAt", "2027-01-01T10:00:00"),
    ],
)
def test_refuses_what_names_nobody_or_no_moment(field: str, value: object) -> None:
    with pytest.raises(PayloadRefused) as refused:
        account_deletions.validated({**GOOD, field: value})
    assert [path for path, _ in refused.value.errors] == [field]
