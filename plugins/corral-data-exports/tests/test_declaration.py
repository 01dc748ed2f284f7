"""What a producer gets: a queue that refuses early what the processor would refuse, and loads
nothing for it.
"""

from __future__ import annotations

import pytest

from corral import PayloadRefused
from corral.testing import DeclarationContract
from corral_data_exports import data_exports

GOOD = {"userId": "4711", "exportId": "export-1", "format": "json"}


class TestDeclaration(DeclarationContract):
    queue = data_exports
    package = "corral_data_exports"
    example = GOOD
    not_for_producers = ("sqlalchemy", "aiosqlite", "asyncpg", "obstore", "zipstream")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"format": "xml"}, "format"),
        ({"format": "JSON"}, "format"),
        ({"userId": ""}, "userId"),
        ({"userId": 4711}, "userId"),
        ({"userId": "a\0"}, "userId"),
        ({"userId": "a\n"}, "userId"),
        ({"userId": "x" * 129}, "userId"),
        ({"exportId": "a\x7f"}, "exportId"),
        ({"exportId": "x" * 129}, "exportId"),
        ({"email": "ada@example.org"}, "email"),
    ],
)
def test_refuses_what_the_processor_would_refuse(fields, path) -> None:
    with pytest.raises(PayloadRefused) as refused:
        data_exports.validated({**GOOD, **fields})
    assert [wrong for wrong, _ in refused.value.errors] == [path]
