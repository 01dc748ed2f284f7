"""The pytest plugin: the fixtures `corral_store`, `corral_kit`, `corral_worker` and the databases.

Every pytest of an environment that has Corral loads this module, whether its tests use Corral or
not; so it imports pytest alone, and everything else when a fixture is first used. The fixtures are
synchronous, and what they return holds no connection between two calls: they serve plain tests,
pytest-asyncio in both modes, and anyio's plugin on asyncio.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from corral.testing.kit import Kit
    from corral.testing.postgresql_server import PostgreSQL
    from corral.testing.worker_process import WorkerProcesses

UNTIDY = "corral_untidy"
NO_POSTGRESQL = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the setting that says on which databases tests run."""
    description = "the databases of tests that use corral_database_…: sqlite, postgresql"
    parser.addini("corral_databases", description, type="args", default=["sqlite"])


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers", f"{UNTIDY}(reason): leaves its store untidy on purpose; the reason says why"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a database once for each of those that are configured."""
    if "_corral_database_kind" in metafunc.fixturenames:
        kinds = metafunc.config.getini("corral_databases")
        metafunc.parametrize("_corral_database_kind", kinds, indirect=True, scope="function")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give tests skipped for want of PostgreSQL one place: pytest counts them in one line."""
    report = yield
    if (
        report.skipped
        and isinstance(report.longrepr, tuple)
        and NO_POSTGRESQL in report.longrepr[2]
    ):
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def _corral_server() -> Iterator[str]:
    """The store of this pytest process: one server, on a socket that nobody else has."""
    from corral.embedded.server import embedded_store  # noqa: PLC0415  # as above
    from corral.errors import CorralError  # noqa: PLC0415  # a suite that needs no store must not pay for it

    with tempfile.TemporaryDirectory(prefix="corral-tests-") as folder:
        running = embedded_store(Path(folder), server=os.environ.get("CORRAL_VALKEY_SERVER"))
        try:
            url = running.__enter__()
        except CorralError as error:
            pytest.fail(f"{error}\nhint: {error.hint}", pytrace=False)
        try:
            yield url
        finally:
            running.__exit__(None, None, None)


@pytest.fixture
def corral_store(request: pytest.FixtureRequest, _corral_server: str) -> Iterator[str]:
    """The `unix://` URL of a real store: empty before the test, searched for leaks after it."""
    import redis  # noqa: PLC0415  # a suite that needs no store must not pay for it

    untidy = request.node.get_closest_marker(UNTIDY)
    if untidy is not None and not (untidy.args and isinstance(untidy.args[0], str)):
        pytest.fail(
            f'@pytest.mark.{UNTIDY}("…") needs the reason why this test leaves its store untidy',
            pytrace=False,
        )
    # before the test, so that what a failed one has left can be looked at
    with redis.Redis.from_url(_corral_server) as client:
        client.flushall()
    failed = request.session.testsfailed
    yield _corral_server
    if untidy is not None or request.session.testsfailed > failed:
        return  # a test that failed half-way has said more than its leaks would
    from corral.testing.leaks import find_leaks  # noqa: PLC0415  # as above

    if leaks := find_leaks(_corral_server, _prefix()):
        pytest.fail("the store was left untidy:\n  " + "\n  ".join(leaks), pytrace=False)


@pytest.fixture
def corral_kit(corral_store: str, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A `corral.testing.Kit` on `corral_store`; `REDIS_URL` names that store meanwhile."""
    from corral.testing.kit import Kit  # noqa: PLC0415  # as above

    monkeypatch.setenv("REDIS_URL", corral_store)
    return Kit(corral_store, prefix=_prefix())


@pytest.fixture
def corral_worker(corral_kit: Kit, tmp_path: Path) -> Iterator[WorkerProcesses]:
    """Starts `corral worker` on `corral_store`; what still runs after the test is killed.

    Its processes run in `tmp_path`, which is on their import path: an application that the test
    writes there is found by `CORRAL_APP`. They search for stalled jobs every second.
    """
    from corral.testing.worker_process import WorkerProcesses  # noqa: PLC0415  # as above

    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    workers = WorkerProcesses(
        tmp_path,
        {
            "REDIS_URL": corral_kit.url,
            "CORRAL_PREFIX": corral_kit.prefix,
            "CORRAL_WORKER__LOCK_SECONDS": "1",
            "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "1",
            "PYTHONPATH": os.pathsep.join(path),
        },
    )
    yield workers
    workers.end()


@pytest.fixture(scope="session")
def _corral_postgresql() -> Iterator[PostgreSQL]:
    """The PostgreSQL of this pytest process, started for the first test that asks for it."""
    from corral.testing.postgresql_server import postgresql_cluster, server_programs  # noqa: PLC0415  # as above

    programs = server_programs()
    if programs is None and os.environ.get("CI") == "true":
        pytest.fail(NO_POSTGRESQL, pytrace=False)
    with postgresql_cluster(programs or pytest.skip(NO_POSTGRESQL)) as server:
        yield server


@pytest.fixture
def _corral_database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if kind not in {"sqlite", "postgresql"}:
        pytest.fail(
            f"corral_databases names {kind!r}, which is neither sqlite nor postgresql",
            pytrace=False,
        )
    return kind


@pytest.fixture
def corral_database_url(
    request: pytest.FixtureRequest,
    _corral_database_kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The URL of an empty database for this test; `CORRAL_DATABASE_URL` names it meanwhile."""
    if _corral_database_kind == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/corral.db"
        monkeypatch.setenv("CORRAL_DATABASE_URL", url)
        yield url
        return
    server: PostgreSQL = request.getfixturevalue("_corral_postgresql")
    with server.database() as url:
        monkeypatch.setenv("CORRAL_DATABASE_URL", url)
        yield url


@pytest.fixture
def corral_database_with_tables(corral_database_url: str) -> str:
    """As `corral_database_url`, with the tables that `corral db create` makes."""
    from corral.app import create_database  # noqa: PLC0415  # as above

    create_database()
    return corral_database_url


def _prefix() -> str:
    return os.environ.get("CORRAL_PREFIX") or "bull"
