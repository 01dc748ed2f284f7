"""Every Python example on a page, and in a public docstring, runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from importlib_metadata import entry_points

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGES = [  # and modules, for their docstrings
    page
    for page in (
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "core").rglob("*.py")),
    )
    if "```python" in page.read_text("utf-8")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page: Path, corral_store: str, tmp_path: Path) -> None:
    info = tmp_path / "acme_pages-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pages\nVersion: 1\n", "utf-8")
    (info / "entry_points.txt").write_text(
        "[corral.queues]\nemails = acme_pages\ninvoices = acme_pages\n", "utf-8"
    )
    installed = {point.dist.name for point in entry_points(group="corral.queues")}
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_", "PYTEST_"))
    }
    environ = {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(HERE / "around")]),
        "REDIS_URL": corral_store,
        "CORRAL_ENV": "development",
        "CORRAL_DATA_DIR": str(tmp_path),
        "CORRAL_DISABLED_PLUGINS": ",".join(sorted(installed)),
    }
    if page.name in {"README.md", "sql.md"}:
        subprocess.run(
            [sys.executable, "-m", "corral", "db", "create"],
            env=environ,
            cwd=tmp_path,
            check=True,
            timeout=60,
        )
    ended = subprocess.run(
        [sys.executable, str(HERE / "run_page.py"), str(page)],
        env=environ,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.splitlines()[-1]) > 0
