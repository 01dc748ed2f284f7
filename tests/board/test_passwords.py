"""How the administrator's password is stored."""

from __future__ import annotations

import pytest

from board.asking import DIGEST, PASSWORD
from corral.board.passwords import PasswordDigest


def test_a_digest_survives_its_text_and_only_its_password_is_right() -> None:
    again = PasswordDigest.parsed(str(DIGEST))
    assert again == DIGEST
    assert again.matches(PASSWORD)
    assert not any(
        again.matches(wrong) for wrong in ("", PASSWORD + " ", PASSWORD.upper(), "\ud800")
    )
    assert "$" not in str(DIGEST), "a variable to shells and to Compose"
    assert PasswordDigest.of(PASSWORD) != DIGEST, "salted"


@pytest.mark.parametrize(
    "text",
    [
        "",
        PASSWORD,
        "scrypt:32768:8:3:AAAA:AAAA",
        str(DIGEST).replace("scrypt", "md5"),
        str(DIGEST).replace("16384", "2"),
        str(DIGEST).replace("16384", "16385"),
        str(DIGEST).replace("16384", str(2**30)),
        str(DIGEST).replace("16384", "-16384"),
        str(DIGEST).replace(":8:1:", ":100000:1:"),
        str(DIGEST) + ":x",
        str(DIGEST)[:-1],
        str(DIGEST)[:-2] + "$$",
    ],
    ids=range(12),
)
def test_a_text_that_is_not_a_digest_or_a_cheap_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # whatever it says, the setting tells in its own words
        PasswordDigest.parsed(text)
