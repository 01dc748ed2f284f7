"""The pytest plugin: the fixtures `corral_store` and `corral_kit`.

Every pytest of an environment that has Corral loads this module, whether its tests use Corral or not; so it imports
pytest, and everything else when a fixture is first asked for. The fixtures are synchronous, and what they give holds no
connection between two calls: they serve plain tests, pytest-asyncio in both modes, and anyio's plugin on asyncio.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from corral.testing.kit import Kit

UNTIDY = "corral_untidy"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", f"{UNTIDY}(reason): leaves its store untidy on purpose; the reason says why")


@pytest.fixture(scope="session")
def _corral_server() -> Iterator[str]:
    """The store of this pytest process: one server, on a socket that nobody else has."""
    from corral.errors import CorralError  # noqa: PLC0415  # a suite that needs no store must not pay for it
    from corral.store.embedded import embedded_store  # noqa: PLC0415  # as above

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
    """The `unix://` URL of a real store: empty before the test, and looked through for leaks after it."""
    import redis  # noqa: PLC0415  # a suite that needs no store must not pay for it

    untidy = request.node.get_closest_marker(UNTIDY)
    if untidy is not None and not (untidy.args and isinstance(untidy.args[0], str)):
        pytest.fail(f'@pytest.mark.{UNTIDY}("…") needs the reason why this test leaves its store untidy', pytrace=False)
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
    """A `corral.testing.Kit` on `corral_store`; `REDIS_URL` names that store while the test runs."""
    from corral.testing.kit import Kit  # noqa: PLC0415  # a suite that needs no store must not pay for it

    monkeypatch.setenv("REDIS_URL", corral_store)
    return Kit(corral_store, prefix=_prefix())


def _prefix() -> str:
    return os.environ.get("CORRAL_PREFIX") or "bull"
