"""The whole of it: `corral worker` as a process of its own, the embedded store, a database, an
application's hooks.
"""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from corral_data_exports import DataExport
from corral_data_exports.storage import object_key

pytestmark = pytest.mark.asyncio

EXPORT = DataExport(user_id="1", export_id="e1", format="json")
KEY = object_key(EXPORT)
RECORDS = 8000


async def test_a_killed_export_is_not_seen_and_succeeds_when_it_is_tried_again(
    site, shop, wait_until
) -> None:
    """It waits half-way, after more than one part of the archive was made, until the file is
    removed.
    """
    site.create_file("wait")
    job_id = await site.enqueue(EXPORT)
    worker = site.worker()
    await wait_until(lambda: site.has_file("waits"), "half of the records are written")
    await wait_until(lambda: site.progress(job_id) == 49, "the store knows how far it is")
    assert shop.is_on_its_way(KEY)

    worker.send_signal(signal.SIGKILL)
    assert worker.wait(timeout=15) == -signal.SIGKILL
    assert shop.is_on_its_way(KEY), "what was killed is not seen"
    assert site.mails() == []
    site.remove_file("wait")

    site.worker()
    await wait_until(lambda: "finishedOn" in site.job(job_id), "another worker has ended the job")
    job = site.job(job_id)
    assert (job["ats"], job["stc"]) == ("2", "1"), (
        "it was started again, because its worker had died"
    )
    assert shop.archives() == [KEY], "what the killed one left is gone"
    assert json.loads(job["returnvalue"])["size"] == (shop.folder / KEY).stat().st_size
    assert len(json.loads(shop.read(KEY)["noise.json"])) == RECORDS
    assert len(site.mails()) == 1


async def test_progress_is_seen_to_move_while_it_runs(site, shop, wait_until) -> None:
    """Each step is read from the store before the export may go on to the next one."""
    site.create_file("step")
    job_id = await site.enqueue(EXPORT)
    site.worker()
    for step in range(1, 5):
        await wait_until(lambda step=step: site.has_file(f"step-{step}"), f"step {step} is reached")
        exact = 99 * step * RECORDS // 4 // (RECORDS + 3)
        written = {exact, exact - 1}  # a few of the records wait to be compressed
        await wait_until(
            lambda written=written: site.progress(job_id) in written, f"the store says {exact} %"
        )
        assert "finishedOn" not in site.job(job_id)
        site.remove_file(f"step-{step}")
    await wait_until(lambda: "finishedOn" in site.job(job_id), "the job has ended")
    assert site.progress(job_id) == 100


@pytest.mark.parametrize("when", ["die-before-mail", "die-after"])
async def test_a_crash_after_the_effect_leaves_one_archive_and_one_mail(
    site, shop, wait_until, when: str
) -> None:
    """It dies when the archive is there: before the mail's job is written, or after it and before
    the completion.
    """
    site.create_file(when)
    job_id = await site.enqueue(EXPORT)
    assert site.worker().wait(timeout=60) == 9
    assert "finishedOn" not in site.job(job_id)
    assert shop.archives() == [KEY]
    assert len(site.mails()) == (when == "die-after")
    before, mailed = (shop.folder / KEY).stat(), site.mails()

    site.worker()
    await wait_until(lambda: "finishedOn" in site.job(job_id), "another worker has ended the job")
    job = site.job(job_id)
    assert (job["ats"], job["stc"]) == ("2", "1"), (
        "it was started again, because its worker had died"
    )
    after = (shop.folder / KEY).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), (
        "the archive was not made again"
    )
    (mail,) = site.mails()
    assert mailed in ([], [mail])
    assert mail["to"] == "ada@example.org"
    assert mail["variables"]["url"].startswith(f"https://app.example/exports/{KEY}?expires=")
    result: dict[str, Any] = json.loads(job["returnvalue"])
    assert result == {
        "key": KEY,
        "size": after.st_size,
        "mail": f"data-exports.{job_id}.export-ready",
    }
