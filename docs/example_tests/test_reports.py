"""Tests of the README's queue with each tool of `corral.testing`: docs/testing.md explains them."""

from datetime import timedelta

from acme_reports import ReportExport, report_exports
from acme_reports.processor import export_report

from corral import Exponential, Job, JobScheduler
from corral.outcome import Completed, Failed, Retried
from corral.testing import Kit, RecordingJobScheduler, WorkerProcesses, job, wait_until


async def order_report(jobs: JobScheduler, user_id: str) -> None:
    """Code of the application that enqueues."""
    report = ReportExport(user_id=user_id, format="pdf")
    await jobs.enqueue(
        report_exports, report, attempts=8, backoff=Exponential(timedelta(minutes=10))
    )


async def test_the_processor_alone() -> None:
    assert (
        await export_report(job(report_exports, {"userId": "ada", "format": "csv"}))
        == "exported csv for ada"
    )


async def test_what_the_application_enqueues() -> None:
    jobs = RecordingJobScheduler()
    await order_report(jobs, "ada")
    jobs.assert_enqueued(report_exports, {"user_id": "ada"})
    jobs.refute_enqueued(report_exports, lambda payload: payload.format == "csv")


async def test_from_the_producer_to_the_worker(corral_kit: Kit) -> None:
    async with corral_kit.connect() as jobs:
        await order_report(jobs, "ada")
    assert corral_kit.assert_enqueued("report-exports", {"format": "pdf"}).state == "waiting"
    drained = await corral_kit.drain()
    assert drained.outcomes(report_exports) == [Completed(b'"exported pdf for ada"')]


async def test_a_job_waits_until_it_is_due(corral_kit: Kit) -> None:
    await corral_kit.enqueue(
        report_exports, {"userId": "ada", "format": "pdf"}, delay=timedelta(hours=1)
    )
    assert not (await corral_kit.drain()).runs
    corral_kit.travel(timedelta(hours=1))
    assert len(await corral_kit.drain()) == 1


async def test_a_report_that_always_fails_is_given_up_within_a_day(corral_kit: Kit) -> None:
    async def broken(job: Job[ReportExport]) -> None:
        raise ConnectionError("the printer is on fire")

    async with corral_kit.connect() as jobs:
        await order_report(jobs, "ada")
    drained = await corral_kit.drain(report_exports.processed_by(broken), for_=timedelta(days=1))
    assert [type(run.outcome) for run in drained] == [Retried] * 7 + [Failed]


async def test_a_worker_process_works_and_stops(
    corral_kit: Kit, corral_worker: WorkerProcesses
) -> None:
    await corral_kit.enqueue("report-exports", {"userId": "ada", "format": "csv"})
    worker = corral_worker("report-exports")
    await wait_until(lambda: corral_kit.jobs("report-exports")[0].state == "completed", "it ran")
    assert worker.stop() == 0, worker.log
