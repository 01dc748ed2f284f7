"""A key of the store is spelt in `corral.store.keys`, and nowhere else in Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.options import may_be_job
from corral.store.keys import JOB_KEYS, QUEUE_KEYS, audit_key, process_key, queue_base

SPELT_IN = "store/keys.py"
ALSO_NAMES = "options.py"
"""It refuses job ids that would be keys. It is below the store, so it has a list of its own;
`test_no_key_can_be_the_id_of_a_job` compares the two.
"""

_NAMES = "|".join(map(re.escape, sorted(QUEUE_KEYS)))
_PARTS = "|".join(re.escape(part.removeprefix(":")) for part in JOB_KEYS if part)
_OWN = (
    "alive|attempts|audit|call|catalog|kept|minutes|notes|probe|quarantine|reasons"
    "|removed-schedules|unconfirmed"
)
KEY = re.compile(
    rf"^corral:(?=$|\w)|:(?:{_NAMES}|{_PARTS}|{_OWN})(?::|$)|^(?:call|de|dn|kept|metrics|repeat):|:w:"
    r"|^(?:limiter|marker|pc|removed-schedules|stalled-check|unconfirmed)$"
)
"""A text, or a part of an f-string, that is a part of a key and nothing else."""
JOINED = re.compile(rf"\{{[^{{}}]*prefix\}}:\{{|\{{[^{{}}]*\bbase\}}(?:{_NAMES}|{_OWN})\b")
"""An f-string that puts a key together: `{prefix}:{queue}`, `{base}meta`."""
SCORES = {4096, 2**32}


def spellings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the text of everything in a module that spells a key or a score."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in documentation:
                if KEY.search(text):
                    yield node.lineno, text
            case ast.JoinedStr():
                if JOINED.search(ast.unparse(node)):
                    yield node.lineno, ast.unparse(node)
            case ast.BinOp(left=left, op=ast.Add(), right=ast.Constant(value=str(name))):
                if name in QUEUE_KEYS and re.search(r"\bbase(?:\(.*\))?$", ast.unparse(left)):
                    yield node.lineno, ast.unparse(node)
            case ast.BinOp(op=ast.FloorDiv() | ast.Mult(), right=ast.Constant(value=int(number))):
                if number in SCORES:
                    yield node.lineno, ast.unparse(node)


def test_keys_are_spelt_in_one_module(written: tuple[Path, ...], root: Path) -> None:
    core = root / "core" / "corral"
    found = []
    for path in written:
        if path.suffix == ".py" and path.is_relative_to(core):
            name = path.relative_to(core).as_posix()
            if name not in {SPELT_IN, ALSO_NAMES}:
                tree = ast.parse(path.read_text("utf-8"))
                found += [f"{name}:{line}: {text}" for line, text in spellings(tree)]
    assert found == [], "ask corral.store.keys"


@pytest.mark.parametrize(
    "code",
    [
        'key = f"{prefix}:{queue}:wait"',
        'key = f"{self._prefix}:{queue}:{name}"',
        'key = f"{self.base}marker"',
        'key = calls.base(queue) + "wait"',
        'key = base + "completed"',
        'key = f"corral:{prefix}:alive"',
        'key = f"{key}:logs"',
        'key = f"repeat:{schedule}"',
        'name = f"{prefix}:{encoded}:w:{worker}"',
        'store.call("BZPOPMIN", base + marker, "marker")',
        "due = score // 4096",
        "score = priority * 4294967296",
    ],
)
def test_a_key_that_is_spelt_elsewhere_is_found(code: str) -> None:
    assert list(spellings(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    [
        '"""The hash `corral:<prefix>:alive`."""',
        'log = Logger("corral.worker")',
        'state = "waiting-children"',
        'message = f"queue {queue!r}: {base} is damaged"',
        "MAX_LENGTH = 4096",
    ],
)
def test_what_is_no_key_is_not_found(code: str) -> None:
    assert not list(spellings(ast.parse(code)))


def test_no_key_can_be_the_id_of_a_job() -> None:
    names = [*QUEUE_KEYS, *(f"one{part}" for part in JOB_KEYS if part), "de:one", "dn:one"]
    assert [name for name in names if may_be_job(name)] == []
    assert may_be_job("one")
    assert may_be_job("repeat:one:1700000000000"), "the job of a schedule's tick"


def test_our_own_keys_are_outside_of_every_queue() -> None:
    """BullMQ's `removeOrphanedJobs` deletes what it does not know below a queue's base."""
    base = queue_base("bull", "letters")
    assert base == "bull:letters:"
    assert not process_key("bull").startswith("bull:")
    assert not audit_key("bull").startswith("bull:")
