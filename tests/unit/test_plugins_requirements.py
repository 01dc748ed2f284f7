"""Which requirements of Corral are met by the installed release."""

from __future__ import annotations

import subprocess
import sys

import pytest

from corral.plugins.requirements import find_unmet


@pytest.mark.parametrize(
    ("requirement", "version"),
    [
        ("corral", "0.1.0"),
        ("corral[sql]", "0.1.0"),
        ("corral>=0.1.0", "0.1.0"),
        ("corral>=0.1", "0.1.0"),
        ("corral>=1.0.0", "1"),
        ("corral (>=0.1)", "0.2"),
        ("Corral[sql,board] >= 0.9", "0.10.0"),
        ("corral<1,>=0.1", "0.1.0"),
        ("corral~=0.1.0", "0.1.7"),
        ("corral==0.1.*", "0.1.7"),
        ("corral>=0.1", "0.2.0.dev3"),
        ("corral>=0.1", "0.1.0+ours"),
        ("corral>=99; python_version < '3'", "0.1.0"),
        ("corral>=99; extra == 'fax'", "0.1.0"),
        ('corral>=99 ; extra == "fax"', "0.1.0"),
        ("corral>=99; extra == 'fax' and python_version >= '3'", "0.1.0"),
        ("corral @ git+https://git.example/corral.git", "0.1.0"),
        ("corral >> 3", "0.1.0"),
    ],
)
def test_met(requirement: str, version: str) -> None:
    assert find_unmet([requirement], version) is None


@pytest.mark.parametrize(
    ("requirement", "version", "unmet"),
    [
        ("corral>=99", "0.1.0", "corral>=99"),
        ("corral[sql]>=0.10", "0.9.9", "corral[sql]>=0.10"),
        ("corral<0.1", "0.1.0", "corral<0.1"),
        ("corral~=0.1.0", "0.2.0", "corral~=0.1.0"),
        ("corral[sql,board]==0.2.*; python_version >= '3'", "0.1.0", "corral[board,sql]==0.2.*"),
        ("corral>=0.2", "0.2.0.dev3", "corral>=0.2"),
        ("corral!=0.1.0", "0.1.0", "corral!=0.1.0"),
    ],
)
def test_not_met(requirement: str, version: str, unmet: str) -> None:
    assert find_unmet(["corral", requirement], version) == unmet


def test_a_producer_with_plain_requirements_does_not_load_packaging() -> None:
    code = (
        "import sys; from corral.plugins.requirements import find_unmet;"
        "assert find_unmet(['corral[sql]>=0.1', 'corral>=9; extra == \"x\"'], '0.1.0') is None;"
        "assert 'packaging' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
