"""The lock file at every front door: whose code runs, which file holds, and what is said."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.catalog.lock import Lock, LockedQueue, read_lock, write_lock

SECONDS = 30.0
ACME = """
from corral import Payload, Processor, Queue, hookimpl

class Letter(Payload):
    to: str = "ada"

letters = Queue("letters", Letter)

async def send(job): pass

@hookimpl
def corral_queues(): return [letters]

@hookimpl
def corral_processors(): return [letters.processed_by(send)]
"""
ROGUE = """
import os
open(os.environ["ACME_RAN"], "a").write("imported\\n")
from corral import hookimpl

@hookimpl
def corral_enqueuing(queue, payload): open(os.environ["ACME_RAN"], "a").write("saw a payload\\n")
"""
DOORS = {
    "check": ["check"],
    "producer": ["enqueue", "letters", "{}"],
    "worker": ["worker", "--burst", "letters"],
    "parent": ["worker", "--processes", "1", "--burst", "letters"],
    "queues": ["queues"],
    "connect": [],
}
PRODUCER = "import corral\nwith corral.connect_blocking() as jobs: jobs.enqueue('letters', {})"

Corral = Callable[..., "subprocess.CompletedProcess[str]"]


def install(folder: Path, distribution: str, points: str, source: str) -> None:
    module = distribution.replace("-", "_")
    info = folder / f"{module}-1.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0.0\n", "utf-8"
    )
    (info / "entry_points.txt").write_text(points, "utf-8")
    (folder / f"{module}.py").write_text(source, "utf-8")


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """What the code of a package that nobody has agreed to writes."""
    return tmp_path / "ran"


@pytest.fixture
def corral(tmp_path: Path, store_url: str, ran: Path) -> Corral:
    """`corral("check", CORRAL_LOCK=…)`: a process that has the distributions of `site`."""
    install(tmp_path / "site", "acme-letters", "[corral.queues]\nletters = acme_letters\n", ACME)
    (tmp_path / "work").mkdir()

    def run(
        *arguments: str, cwd: Path | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CORRAL_", "REDIS"))
        }
        return subprocess.run(
            [sys.executable, *(("-m", "corral", *arguments) if arguments else ("-c", PRODUCER))],
            env={
                **inherited,
                "PYTHONPATH": str(tmp_path / "site"),
                "REDIS_URL": store_url,
                "ACME_RAN": str(ran),
                **environment,
            },
            cwd=cwd or tmp_path / "work",
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


def add_rogue(tmp_path: Path, group: str) -> None:
    install(tmp_path / "site", "acme-helper", f"[{group}]\nhelper = acme_helper\n", ROGUE)


@pytest.mark.corral_untidy("jobs that a refused start does not work off")
@pytest.mark.parametrize(
    ("door", "group"),
    [(door, "corral.plugins") for door in ("check", "producer", "worker", "connect")]
    + [("check", "corral.queues")],
)
def test_no_code_of_a_package_runs_that_is_not_in_the_lock_file(
    corral: Corral, tmp_path: Path, ran: Path, door: str, group: str
) -> None:
    assert corral("lock").returncode == 0
    add_rogue(tmp_path, group)
    refused = corral(*DOORS[door])
    assert refused.returncode == (1 if door == "connect" else 3)
    assert "'helper' of acme-helper 1.0.0 is not in the lock file" in refused.stderr
    assert not ran.exists()
    if door == "check":
        corral("plugins")
        assert not ran.exists()
        assert corral("check", CORRAL_DISABLED_PLUGINS="acme-helper").returncode == 0


@pytest.mark.parametrize("door", ["check", "worker", "parent", "queues", "connect"])
def test_a_start_without_a_lock_file_is_refused_where_there_must_be_one(
    corral: Corral, door: str
) -> None:
    refused = corral(*DOORS[door], CORRAL_LOCKED="true")
    assert refused.returncode == (1 if door == "connect" else 3)
    assert "there is no lock file 'corral.lock', and CORRAL_LOCKED is true" in refused.stderr


def test_the_named_lock_file_holds_wherever_a_process_is_started(
    corral: Corral, tmp_path: Path
) -> None:
    assert corral("lock", CORRAL_LOCKED="true").returncode == 0, "else it could never be written"
    assert corral("check", CORRAL_LOCKED="true").returncode == 0
    path = str(tmp_path / "work" / "corral.lock")
    assert corral("check", cwd=tmp_path, CORRAL_LOCKED="true").returncode == 3
    assert corral("check", cwd=tmp_path, CORRAL_LOCKED="true", CORRAL_LOCK=path).returncode == 0


def test_a_lock_file_that_is_named_and_not_there_refuses_the_start_and_is_written(
    corral: Corral, tmp_path: Path
) -> None:
    path = str(tmp_path / "named.lock")
    refused = corral("check", CORRAL_LOCK=path)
    assert (
        refused.returncode,
        f"there is no lock file '{path}', and CORRAL_LOCK names it" in refused.stderr,
    ) == (
        3,
        True,
    )
    written = corral("lock", CORRAL_LOCK=path)
    assert written.stdout.startswith(f"{path}: ")
    assert corral("check", CORRAL_LOCK=path).stdout.endswith(f"catalog is locked: {path}\n")


def test_the_lock_file_holds_the_packages_that_have_hooks_alone(
    corral: Corral, tmp_path: Path, ran: Path
) -> None:
    add_rogue(tmp_path, "corral.plugins")
    assert "1 other plugin" in corral("lock").stdout
    lock = read_lock(tmp_path / "work" / "corral.lock")
    assert lock is not None
    assert lock.plugins == {"acme-helper": "1.0.0"}
    assert corral("check").returncode == 0
    assert ran.exists(), "it was agreed on"


@pytest.mark.parametrize(
    ("environment", "said"),
    [({}, True), ({"CORRAL_ENV": "staging"}, True), ({"CORRAL_ENV": "development"}, False)],
)
@pytest.mark.parametrize("door", ["worker", "parent"])
def test_a_worker_says_in_production_that_the_catalog_is_open(
    corral: Corral, door: str, environment: dict[str, str], said: bool
) -> None:
    assert corral(*DOORS[door], **environment).stderr.count("catalog is open") == said


def test_a_producer_says_so_as_well(
    corral: Corral, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys.modules[__name__],
        "PRODUCER",
        f"import logging\nlogging.basicConfig(level=20)\n{PRODUCER}",
    )
    opened = corral()
    assert (opened.returncode, "catalog is open" in opened.stderr) == (0, True), opened.stderr


@pytest.mark.parametrize("door", ["parent", "check"])
def test_a_lock_file_of_the_first_form_is_read_with_one_warning(
    corral: Corral, tmp_path: Path, door: str
) -> None:
    assert corral("lock").returncode == 0
    path = tmp_path / "work" / "corral.lock"
    path.write_text(path.read_text("utf-8").replace("form = 2\n", ""), "utf-8")
    add_rogue(tmp_path, "corral.plugins")
    started = corral(*DOORS[door])
    assert (started.returncode, started.stderr.count("the lock file is of the first form")) == (
        0,
        1,
    )


@pytest.mark.parametrize("door", ["worker"])
def test_a_patch_release_is_reported_as_one_and_a_setting_allows_it(
    corral: Corral, tmp_path: Path, door: str
) -> None:
    assert corral("lock").returncode == 0
    path = tmp_path / "work" / "corral.lock"
    lock = read_lock(path)
    assert lock is not None
    before = LockedQueue("acme-letters", "0.9.9", lock.queues["letters"].fingerprint)
    write_lock(path, Lock({**lock.queues, "letters": before}, lock.plugins))
    refused = corral(*DOORS[door], CORRAL_LOCK_PATCHES="allow")
    assert (refused.returncode, "version '0.9.9' is locked" in refused.stderr) == (3, True), (
        "another minor version"
    )
    before = LockedQueue("acme-letters", "1.0", lock.queues["letters"].fingerprint)
    installed = tmp_path / "site" / "acme_letters-1.0.0.dist-info" / "METADATA"
    installed.write_text(installed.read_text("utf-8").replace("1.0.0", "1.0.3"), "utf-8")
    write_lock(path, Lock({**lock.queues, "letters": before}, lock.plugins))
    warning = (
        "acme-letters 1.0.3 is a patch release of 1.0, which is locked, with the same payloads"
    )
    refused = corral(*DOORS[door])
    assert (refused.returncode, warning in refused.stderr) == (3, True)
    allowed = corral(*DOORS[door], CORRAL_LOCK_PATCHES="allow")
    assert (allowed.returncode, allowed.stderr.count(warning)) == (0, 1)


def test_a_board_alone_starts_without_what_is_not_in_the_lock_file_and_says_so(
    corral: Corral, tmp_path: Path, ran: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is needed most where something is wrong, and runs no code that nobody has agreed to
    either.
    """
    assert corral("lock").returncode == 0
    add_rogue(tmp_path, "corral.plugins")
    started = (
        "from corral.app.installed import read_usable_plugins\n"
        "installed, problems = read_usable_plugins()\n"
        "print([each.code for each in problems], 'letters' in installed.catalog.entries,"
        " installed.catalog.is_locked)"
    )
    monkeypatch.setattr(sys.modules[__name__], "PRODUCER", started)
    assert corral().stdout == "['not-locked'] True True\n"
    assert not ran.exists()
