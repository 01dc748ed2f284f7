"""A worker process that dies at the worst moment: the file is written, and the store does not know
of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from corral.testing import Kit
from corral_report_exports import report_exports

APPLICATION = '''
"""Dies once, when a processor has returned and its job has not ended."""
import os
from contextlib import contextmanager
from pathlib import Path
from corral import hookimpl

@hookimpl
@contextmanager
def corral_job_context(job):
    yield
    if Path("die").exists():
        Path("die").unlink()
        os.kill(os.getpid(), 9)
'''
SECONDS = 60
"""How long a worker process may take."""


@pytest.fixture
def worker(tmp_path: Path, corral_kit: Kit) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts `corral worker` as a process of its own, with that application.

    None outlives the test.
    """
    (tmp_path / "acme_jobs.py").write_text(APPLICATION, "utf-8")
    own = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")} | {
        "REDIS_URL": corral_kit.url,
        "CORRAL_APP": "acme_jobs",
        "CORRAL_REPORT_EXPORTS_DIR": str(tmp_path / "exports"),
        "CORRAL_WORKER__LOCK_SECONDS": "1",
        "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "1",
    }
    command = [sys.executable, "-m", "corral", "worker", "report-exports"]
    with ExitStack() as started:

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, cwd=tmp_path, env=own)
            started.enter_context(process)
            started.callback(process.kill)
            return process

        yield start


@pytest.mark.asyncio
async def test_a_crash_between_the_file_and_the_completion_leaves_one_file(
    corral_kit: Kit, worker: Callable[[], subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "die").touch()
    payload = {"userId": "ada", "reportId": "q3-sales", "format": "pdf"}
    await corral_kit.enqueue(report_exports, payload, job_id="q3-ada")

    assert worker().wait(timeout=SECONDS) == -signal.SIGKILL
    (written,) = (tmp_path / "exports").iterdir()
    content = written.read_bytes()
    assert [job.state for job in corral_kit.jobs(report_exports)] == ["active"], (
        "the store knows of no end"
    )

    other = worker()
    deadline = time.monotonic() + SECONDS
    while corral_kit.jobs(report_exports)[0].state != "completed":
        assert time.monotonic() < deadline, "no other worker has ended the job"
        await asyncio.sleep(0.05)
    other.terminate()
    assert other.wait(timeout=SECONDS) == 0
    with redis.Redis.from_url(corral_kit.url, decode_responses=True) as client:
        job = client.hgetall(f"{corral_kit.prefix}:report-exports:q3-ada")
    assert (job["ats"], job["stc"]) == ("2", "1"), (
        "it was started again, because its worker had died"
    )
    assert json.loads(job["returnvalue"]) == {"file": written.name, "size": len(content)}
    assert [file.name for file in (tmp_path / "exports").iterdir()] == ["report-exports.q3-ada.pdf"]
    assert written.read_bytes() == content
