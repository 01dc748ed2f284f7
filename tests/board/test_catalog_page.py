"""The catalog page: what is installed, what is broken and why, and undeclared queues."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import redis

from board.asking import DIGEST, PASSWORD, Browser
from corral.board import Board, Identity, Role
from corral.board.login import Login
from corral.errors import CatalogError


def distribution(folder: Path, name: str, module: str, source: str, *queues: str) -> None:
    """Write a distribution as an installer leaves it."""
    (folder / f"{module}.py").write_text(source)
    metadata = folder / f"{module}-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0\n")
    points = "".join(f"{queue} = {module}\n" for queue in queues)
    (metadata / "entry_points.txt").write_text(f"[corral.queues]\n{points}")
    sys.modules.pop(module, None)


@pytest.fixture
def broken(on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the working queues: a plugin that cannot be imported, and one that is disabled."""
    distribution(
        tmp_path, "acme-reports", "acme_reports", "import weasyprint_is_not_here\n", "reports"
    )
    distribution(tmp_path, "acme-faxes", "acme_faxes", "import weasyprint_is_not_here\n", "faxes")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("CORRAL_DISABLED_PLUGINS", "acme-faxes")


@pytest.mark.asyncio
async def test_alone_it_shows_what_is_broken_and_works_for_the_rest(
    broken: None, store: redis.Redis
) -> None:
    store.hset("bull:elsewhere:meta", "version", "bullmq:6")
    board = Board(login=Login(DIGEST))
    try:
        operator = Browser(board, host="localhost")
        await operator.log_in(password=PASSWORD)
        page = (await operator.see("/catalog")).text
        assert "plugin &#39;reports&#39; (acme-reports 2.0) failed to import" in page
        assert "weasyprint_is_not_here" in page
        assert "Disabled by CORRAL_DISABLED_PLUGINS: faxes." in page
        assert "<b>elsewhere</b>" in page
        assert "board-test-queues 1.0" in page
        assert "broken and not in the catalog" in (await operator.see("/")).text
        await operator.see("/queues/letters")
        await operator.see("/queues/reports", 404)
    finally:
        await board.close()


@pytest.mark.asyncio
async def test_mounted_the_board_does_not_start_with_half_a_catalog(broken: None) -> None:
    with pytest.raises(CatalogError, match="acme-reports"):
        Board(authorize=lambda _: Identity("ada", Role.ADMIN)).start()
