"""The plugins that the core brings along: loaded in every process, and cheap there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

TABLES = """
from corral import hookimpl

@hookimpl
def corral_tables():
    raise AssertionError("asked without SQLAlchemy")
"""
PROGRAM = """
import json, sys
sys.modules["sqlalchemy"] = None  # as where the extra 'sql' is not installed
from corral.app.sql_database import create_database
from corral.app.installed import read_installed
from corral.errors import MissingExtra
installed = read_installed()
try:
    create_database()
except MissingExtra as error:
    hooks = [each.module for each in installed.plugins.implementations("corral_tables")]
    print(json.dumps([hooks, str(error)]))
"""


def run(program: str, folder: Path, **environment: str) -> str:
    """What a process prints in which only the core and the modules of a folder are loaded."""
    disabled = "emails,report-exports,webhooks-outgoing,account-deletions,data-exports"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        cwd=folder,
        env={
            "PYTHONPATH": str(folder),
            "CORRAL_ENV": "development",
            "CORRAL_DISABLED_PLUGINS": f"{disabled},billing-webhooks-retry,usage-period-rollover",
            **environment,
        },
    )
    return ended.stdout


def test_the_hook_for_tables_is_offered_without_loading_sqlalchemy(tmp_path: Path) -> None:
    (tmp_path / "acme_jobs.py").write_text(TABLES, "utf-8")
    program = (
        "import sys; from corral.app.installed import read_installed\n"
        "plugins = read_installed().plugins\n"
        "print(len(plugins.implementations('corral_tables')), 'sqlalchemy' in sys.modules,"
        " 'corral.sql' in sys.modules)"
    )
    assert run(program, tmp_path, CORRAL_APP="acme_jobs") == "1 False False\n"


def test_tables_without_sqlalchemy_are_one_sentence_that_names_who_declares_them(
    tmp_path: Path,
) -> None:
    (tmp_path / "acme_jobs.py").write_text(TABLES, "utf-8")
    modules, message = json.loads(run(PROGRAM, tmp_path, CORRAL_APP="acme_jobs"))
    assert modules == ["acme_jobs"]
    assert message == (
        "acme_jobs declares SQL tables (corral_tables), and SQLAlchemy is not installed: install"
        " the extra 'sql' from where you got corral"
    )
