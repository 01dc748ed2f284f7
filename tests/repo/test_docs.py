"""The pages and the code say the same: every hook, setting and command is documented, exactly as it
is.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from corral import hookspecs, sql_hookspecs
from corral.cli import cli
from corral.settings import Settings, WorkerSettings

HOOKS = {
    name: value
    for module in (hookspecs, sql_hookspecs)
    for name, value in vars(module).items()
    if hasattr(value, "corral_spec")
}
"""The specifications of the core's hooks, in the order of the page."""


SETTINGS = {
    **{
        f"CORRAL_{name.upper()}": field.default
        for name, field in Settings.model_fields.items()
        if name != "worker"
    },
    **{
        f"CORRAL_WORKER__{name.upper()}": field.default
        for name, field in WorkerSettings.model_fields.items()
    },
}
SETTINGS["REDIS_URL"] = SETTINGS.pop("CORRAL_REDIS_URL")


def headings(page: Path) -> list[str]:
    """The headings of a page that are one piece of code, without their backticks."""
    return re.findall(r"^#+ `([^`]+)`$", page.read_text("utf-8"), re.MULTILINE)


def test_every_hook_is_documented_with_its_exact_signature(root: Path) -> None:
    written = [f"{name}{inspect.signature(hook)}".replace("'", "") for name, hook in HOOKS.items()]
    assert headings(root / "docs" / "hooks.md") == written


def test_every_hook_of_our_plugins_is_documented_with_its_arguments(root: Path) -> None:
    offered = set()
    for path in (root / "plugins").glob("*/src/*/hookspecs.py"):
        for made in ast.parse(path.read_text("utf-8")).body:
            if isinstance(made, ast.FunctionDef):
                offered.add(
                    f"{made.name}({', '.join(argument.arg for argument in made.args.args)})"
                )
    page = (root / "docs" / "hooks.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+\(.*?\))` \|", page, re.MULTILINE)) == offered != set()


def test_every_setting_is_documented_with_its_default(root: Path) -> None:
    page = (root / "docs" / "settings.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| `?([^`|]+?)`? \|", page, re.MULTILINE))
    assert rows == {name: shown(default) for name, default in SETTINGS.items()}


def test_every_command_is_documented_with_its_usage_and_its_options(root: Path) -> None:
    sections = re.split(r"^## ", (root / "docs" / "cli.md").read_text("utf-8"), flags=re.MULTILINE)[
        1:
    ]
    rows = re.compile(r"^\| `(-.*?)` \| ", re.MULTILINE)
    written = {
        heading.strip("`"): [option.replace(r"\|", "|") for option in rows.findall(body)]
        for heading, _, body in (section.partition("\n") for section in sections)
    }
    assert written == dict(usages(cli, click.Context(cli, info_name="corral")))


def usages(command: click.Command, context: click.Context) -> Iterator[tuple[str, list[str]]]:
    """Every command below a group: its usage line, and its options as its help shows them."""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from usages(below, click.Context(below, info_name=name, parent=context))
        if not command.invoke_without_command or context.parent is None:
            return
    records = [
        option.get_help_record(context)
        for option in command.params
        if isinstance(option, click.Option)
    ]
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    yield usage, [record[0] for record in records if record]


def shown(default: object) -> str:
    """A default as the page writes it."""
    if default in (None, ()):
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def test_every_hook_is_called_by_a_test(root: Path) -> None:
    tests = [
        path.read_text("utf-8")
        for path in (root / "tests").rglob("test_*.py")
        if "repo" not in path.parts
    ]
    assert [name for name in HOOKS if not any(name in text for text in tests)] == []


def test_links_between_pages_lead_somewhere(written: tuple[Path, ...], root: Path) -> None:
    pages = [path for path in written if path.suffix == ".md"]
    dead = [
        f"{page.relative_to(root)} -> {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert dead == []


def test_every_promise_names_tests_that_there_are(root: Path) -> None:
    page = (root / "docs" / "promises.md").read_text("utf-8")
    rows = re.findall(
        r"^\| (.+) \| (.+) \|$", page.partition("## What is not promised")[0], re.MULTILINE
    )
    promises = [shown_by for _, shown_by in rows if shown_by != "shown by"]
    assert len(promises) > 30
    for shown_by in promises:
        if shown_by.startswith("not promised: "):
            continue
        named = re.findall(r"`([\w/.-]+\.py)::([\w:]+)`", shown_by)
        assert named, f"no test: {shown_by}"
        assert len(named) == shown_by.count("`") // 2, f"not a test: {shown_by}"
        missing = [
            f"{path}::{name}" for path, name in named if name not in named_tests(root / path)
        ]
        assert missing == []


def test_every_line_of_the_security_page_names_tests_that_there_are(root: Path) -> None:
    page = (root / "SECURITY.md").read_text("utf-8")
    rows = re.findall(r"^\| (.+) \| (.+) \|$", page, re.MULTILINE)[1:]
    assert len(rows) >= 15
    for what, shown_by in rows:
        named = re.findall(r"`([\w/.-]+\.py)::(\w+)`", shown_by)
        assert named, f"no test: {what}"
        missing = [
            f"{path}::{name}" for path, name in named if name not in named_tests(root / path)
        ]
        assert missing == []


def test_the_thirteen_promises_are_all_there(root: Path) -> None:
    page = (root / "docs" / "promises.md").read_text("utf-8")
    numbers = re.findall(r"^\| (P\d+) \| [^|]+ \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    assert numbers == [f"P{number}" for number in range(1, 14)]


def named_tests(path: Path) -> set[str]:
    """The tests of a file, those in classes as `Class::test`."""
    found = set()
    for made in ast.parse(path.read_text("utf-8")).body if path.is_file() else ():
        within = (
            [(f"{made.name}::", each) for each in made.body]
            if isinstance(made, ast.ClassDef)
            else [("", made)]
        )
        for prefix, each in within:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith(
                "test_"
            ):
                found.add(prefix + each.name)
    return found
