"""The pytest plugin as a user has it: in a pytest of its own, with either plugin for async tests,
or with none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from corral.testing.plugin import NO_POSTGRESQL
from corral.testing.postgresql_server import server_programs

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "example_tests" / "test_reports.py"
CONTRACT = ROOT / "docs" / "example_tests" / "test_declaration.py"
PAGE = ROOT / "docs" / "testing.md"
README = (ROOT / "README.md").read_text("utf-8")
MODULES: dict[str, str] = dict(
    re.findall(r"`acme-reports/src/([^`]+\.py)`[^`]*```\w+\n(.*?)```", README, re.DOTALL)
)
"""The README's first queue, by the modules' names."""

ANYIO = "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
MARKED = "import pytest\n\npytestmark = pytest.mark.{}\n"
ASYNCIO = ("-p", "no:anyio", "-o", "asyncio_default_fixture_loop_scope=function")
NEITHER = ("-p", "no:asyncio", "-p", "no:anyio")
SECONDS = 120.0

Suite = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def suite(tmp_path: Path, real_plugins: str) -> Iterator[Suite]:
    """`suite({"test_a.py": "…"}, "-q")` starts pytest on these files, where the README's queue is
    installed.
    """
    site = tmp_path / "site"
    info = site / "acme_reports-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-reports\nVersion: 0.1.0\n", "utf-8"
    )
    (info / "entry_points.txt").write_text(
        "[corral.queues]\nreport-exports = acme_reports\n", "utf-8"
    )
    for name, text in MODULES.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text, "utf-8")
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_", "PYTEST_"))
    }
    own |= {"PYTHONPATH": str(site), "CORRAL_DISABLED_PLUGINS": real_plugins}
    with ExitStack() as started:

        def start(files: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
            folder = tmp_path / f"suite-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
            for name, text in files.items():
                (folder / name).write_text(textwrap.dedent(text), "utf-8")
            command = [
                sys.executable,
                "-m",
                "pytest",
                "--strict-markers",
                "-p",
                "no:cacheprovider",
                *arguments,
            ]
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=own,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


def said(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it has printed, when it has ended as it should."""
    out, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == code, out
    return out


@pytest.mark.parametrize(
    ("marker", "arguments"),
    [
        ("", (*ASYNCIO, "-o", "asyncio_mode=auto")),
        ("asyncio", (*ASYNCIO, "-o", "asyncio_mode=strict")),
        ("", ("-p", "no:asyncio", "-o", "anyio_mode=auto")),
        ("anyio", ("-p", "no:asyncio")),
    ],
    ids=["pytest-asyncio auto", "pytest-asyncio strict", "anyio auto", "anyio marked"],
)
def test_the_example_of_the_page_passes(
    suite: Suite, marker: str, arguments: tuple[str, ...]
) -> None:
    example = EXAMPLE.read_text("utf-8")
    if marker:
        example = example.replace(
            "\n\nfrom datetime", f"\n\n{MARKED.format(marker)}\nfrom datetime", 1
        )
        assert f"pytest.mark.{marker}" in example
    conftest = "" if "no:anyio" in arguments else ANYIO
    out = said(
        suite(
            {"test_reports.py": example, "conftest.py": conftest}, "-q", "--durations=6", *arguments
        )
    )
    assert "6 passed" in out
    print(re.findall(r"6 passed in .*?s", out)[0])
    day = re.findall(r"^(\S+)s call .*within_a_day$", out, re.MULTILINE)
    print("a day of retries:", f"{float(day[0]) * 1000:.0f} ms" if day else "less than 5 ms")


def test_the_contract_of_the_page_passes(suite: Suite) -> None:
    files = {"test_declaration.py": CONTRACT.read_text("utf-8")}
    assert "5 passed" in said(suite(files, "-q", *NEITHER))


def test_the_page_shows_what_is_run() -> None:
    example = EXAMPLE.read_text("utf-8") + CONTRACT.read_text("utf-8")
    shown = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(shown) == 4
    assert [block for block in shown if block not in example] == []


def test_a_suite_that_does_not_use_it_loads_nothing_of_it(suite: Suite) -> None:
    test = """
        import sys

        def test_what_is_loaded(pytestconfig):
            assert pytestconfig.pluginmanager.has_plugin("corral"), "the plugin itself is there"
            print("loaded:", *sorted(sys.modules))
    """
    out = said(suite({"test_it.py": test}, "-s", "-q", *NEITHER))
    loaded = set(out.split("loaded:")[1].split())
    assert {"pytest", "corral", "corral.testing"} <= loaded
    heavy = {
        "redis",
        "hiredis",
        "pydantic",
        "structlog",
        "cronsim",
        "click",
        "corral.queue",
        "corral.store",
    }
    assert loaded & (heavy | {"corral.worker", "corral.plugins", "corral.settings"}) == set()
    own = sorted(name for name in loaded if name.split(".")[0] == "corral")
    print(f"of Corral, pytest has loaded {', '.join(own)}")


def test_a_planted_leak_fails_the_test_that_left_it(suite: Suite) -> None:
    test = """
        import pytest
        import redis

        def plant(url):
            with redis.Redis.from_url(url) as store:
                store.set("bull:q:7:lock", "token")

        def test_tidy(corral_store):
            pass

        def test_untidy(corral_store):
            plant(corral_store)

        def test_the_next_one_finds_an_empty_store(corral_store):
            with redis.Redis.from_url(corral_store) as store:
                assert store.dbsize() == 0

        @pytest.mark.corral_untidy("it shows that it may")
        def test_untidy_on_purpose(corral_store):
            plant(corral_store)

        def test_failed(corral_store):
            plant(corral_store)
            raise ValueError("said once")

        @pytest.mark.corral_untidy
        def test_without_a_reason(corral_store):
            pass
    """
    out = said(suite({"test_leaks.py": test}, "-rA", *NEITHER), code=1)
    assert re.findall(
        r"^(\w+) test_leaks\.py::(\w+)", out.split("short test summary")[1], re.MULTILINE
    ) == [
        ("PASSED", "test_tidy"),
        ("PASSED", "test_untidy"),
        ("PASSED", "test_the_next_one_finds_an_empty_store"),
        ("PASSED", "test_untidy_on_purpose"),
        ("ERROR", "test_untidy"),
        ("ERROR", "test_without_a_reason"),
        ("FAILED", "test_failed"),
    ]
    assert "the store was left untidy:\n  bull:q:7:lock is left (string)" in out
    assert "needs the reason why" in out


def test_worker_processes_crash_and_stop_and_none_outlives_its_test(suite: Suite) -> None:
    test = """
        import asyncio, os, pathlib
        from corral.testing import wait_until
        from acme_reports import report_exports

        APPLICATION = '''
        import os
        from contextlib import contextmanager
        from corral import hookimpl

        @hookimpl
        @contextmanager
        def corral_job_context(job):
            yield
            if job.payload.user_id == os.environ.get("DIES_FOR"):
                os.kill(os.getpid(), 9)
        '''

        def enqueue(kit, user_id):
            return asyncio.run(kit.enqueue(report_exports, {"userId": user_id, "format": "csv"})).id

        def test_a_crash(corral_kit, corral_worker, tmp_path):
            (tmp_path / "acme_jobs.py").write_text(APPLICATION)
            enqueue(corral_kit, "ada")
            first = corral_worker("report-exports", environ={"CORRAL_APP": "acme_jobs", "DIES_FOR": "ada"})
            asyncio.run(wait_until(lambda: not first.is_running, "the first dies"))
            assert first.exit_code == -9
            second = corral_worker("report-exports", environ={"CORRAL_APP": "acme_jobs"})
            state = lambda: corral_kit.jobs(report_exports)[0].state
            asyncio.run(wait_until(lambda: state() == "completed", "the second has it"))
            assert second.exit_code is None
            assert second.stop() == 0, second.log
            assert "worker stopped" in second.log
            assert "worker stopped" not in first.log

        def test_what_runs_still_is_killed(corral_kit, corral_worker):
            worker = corral_worker("report-exports")
            asyncio.run(wait_until(lambda: "worker started" in worker.log, "it works"))
            pathlib.Path("pid").write_text(str(worker.process.pid))

        def test_it_was_killed():
            pid = int(pathlib.Path("pid").read_text())
            assert not pathlib.Path(f"/proc/{pid}").exists()
    """
    out = said(suite({"test_it.py": test}, "-q", *NEITHER))
    assert "3 passed" in out


def test_the_contract_fails_where_a_declaration_breaks_it(suite: Suite) -> None:
    test = """
        from acme_reports import report_exports
        from corral.testing import DeclarationContract

        class TestGood(DeclarationContract):
            queue, package, example = report_exports, "acme_reports", {"userId": "a", "format": "csv"}

        class TestBad(TestGood):
            example = {"user_id": "a", "format": "csv"}  # Python's name: another language writes userId
            not_for_producers = ("corral.queue",)
    """
    out = said(suite({"test_it.py": test}, "-q", *NEITHER), code=1)
    failed = re.findall(r"^FAILED .*::(Test\w+::test_\w+)", out, re.MULTILINE)
    assert failed == [
        "TestBad::test_an_example_is_written_as_other_languages_write_it",
        "TestBad::test_a_producer_loads_nothing_that_only_a_worker_needs",
        "TestBad::test_a_producer_needs_nothing_that_only_a_worker_needs",
    ]


def test_two_runs_side_by_side_do_not_see_each_other(suite: Suite) -> None:
    """Both are in the middle of a test at once: each waits for the other's file before it looks at
    its own store.
    """
    test = """
        import asyncio, pathlib, time
        from acme_reports import report_exports

        HERE, THERE = pathlib.Path("../{here}"), pathlib.Path("../{there}")

        def meet(name):
            (HERE.parent / (HERE.name + name)).touch()
            deadline = time.monotonic() + 30
            while not (THERE.parent / (THERE.name + name)).exists():
                assert time.monotonic() < deadline, "the other run has not come"
                time.sleep(0.01)

        def test_each_has_its_own_store(corral_kit):
            asyncio.run(corral_kit.enqueue(report_exports, {{"userId": "{here}", "format": "csv"}}))
            meet("enqueued")
            assert [job.payload.user_id for job in corral_kit.jobs(report_exports)] == ["{here}"]
            meet("seen")
            assert len(asyncio.run(corral_kit.drain())) == 1
            print("store:", corral_kit.url)
    """
    runs = [
        suite({"test_it.py": test.format(here=a, there=b)}, "-s", "-q", *NEITHER)
        for a, b in (("ada", "bob"), ("bob", "ada"))
    ]
    stores = [re.findall(r"store: (\S+)", said(run))[0] for run in runs]
    assert stores[0] != stores[1]


def test_a_store_that_cannot_be_started_is_one_sentence(suite: Suite) -> None:
    test = """
        import os
        os.environ["CORRAL_VALKEY_SERVER"] = "/nowhere/valkey-server"

        def test_it(corral_store):
            pass
    """
    out = said(suite({"test_it.py": test}, "-q", *NEITHER), code=1)
    assert re.search(r"^E? *.*/nowhere/valkey-server.*\nE? *hint: ", out, re.MULTILINE), out
    assert "Traceback" not in out


DATABASES = {
    "test_it.py": """
        import asyncio, os
        import pytest
        from sqlalchemy import inspect, text
        from corral import sql

        async def tables(url):
            engine = sql.create_engine(url)
            async with engine.connect() as connection:
                names = await connection.run_sync(lambda c: inspect(c).get_table_names())
            await engine.dispose()
            return names

        @pytest.mark.parametrize("round", [1, 2])
        def test_empty_and_the_tests_own(corral_database_url, round):
            assert os.environ["CORRAL_DATABASE_URL"] == corral_database_url
            assert asyncio.run(tables(corral_database_url)) == []
            async def leave_a_table():
                engine = sql.create_engine()
                async with engine.begin() as connection:
                    await connection.execute(text("CREATE TABLE left_behind (id INTEGER)"))
                await engine.dispose()
            asyncio.run(leave_a_table())

        def test_with_tables(corral_database_with_tables):
            assert {"corral_ledger", "corral_outbox"} <= set(asyncio.run(tables(corral_database_with_tables)))
    """
}


BOTH = ("-o", "corral_databases=sqlite postgresql")


def test_a_test_that_asks_for_a_database_runs_on_each_that_is_configured(suite: Suite) -> None:
    out = said(suite(DATABASES, *NEITHER, "-v"))
    assert "3 passed" in out
    assert "[postgresql" not in out
    if server_programs() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(NO_POSTGRESQL)
    assert "6 passed" in said(suite(DATABASES, *NEITHER, *BOTH))


def test_an_unknown_database_is_reported(suite: Suite) -> None:
    out = said(suite(DATABASES, *NEITHER, "-o", "corral_databases=oracle"), code=1)
    assert "corral_databases names 'oracle', which is neither sqlite nor postgresql" in out


@pytest.mark.parametrize(
    ("ci", "code", "counted"), [("", 0, "3 passed, 3 skipped"), ("true", 1, "3 passed, 3 errors")]
)
def test_without_postgresql_its_half_is_skipped_in_one_counted_line_and_fails_in_ci(
    suite: Suite, ci: str, code: int, counted: str
) -> None:
    absent = f"""
        import os
        import corral.testing.postgresql_server
        os.environ["CI"] = "{ci}"
        corral.testing.postgresql_server.server_programs = lambda: None
    """
    out = said(suite({**DATABASES, "conftest.py": absent}, *NEITHER, *BOTH, "-rs"), code=code)
    assert counted in out
    if not ci:
        assert out.count(NO_POSTGRESQL) == 1, out
