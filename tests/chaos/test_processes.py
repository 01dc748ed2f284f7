"""`corral worker --processes N`: what a dead, a stopped or a restarted process means for jobs and
for the others.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest

from chaos.processes import Worker
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

FAST = {"lock_seconds": 1.0, "stalled_interval_seconds": 1.0}
SLOW = {"lock_seconds": 60.0, "stalled_interval_seconds": 60.0}
"""Nothing comes back by itself within any test: what does was handed back."""
CONCURRENCY = 5
AGAIN_SECONDS = 1.0
RATE = 0.8
WINDOW_SECONDS = 2.5


def ends(scene: Scene, pids: set[int], start: float) -> int:
    """How many jobs these processes have ended in a window of time."""
    lines = (line for line in scene.journal.lines() if line.event == "end" and line.pid in pids)
    return sum(start <= line.at < start + WINDOW_SECONDS for line in lines)


async def gone(scene: Scene, below: list[psutil.Process]) -> None:
    """Wait until none of these processes is left, not even as a zombie that its parent forgot."""
    await scene.until(
        lambda: not any(process.is_running() for process in below), "all processes are gone"
    )


@pytest.mark.timing
async def test_jobs_of_a_killed_process_run_again_at_once_and_the_others_keep_their_rate(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    parent = await scene.hire(processes=4, concurrency=CONCURRENCY, **SLOW)
    enqueued = await scene.enqueue(*[{"ms": 100}] * 1500)
    await scene.started(enqueued[100])
    doomed, *others = parent.children().values()
    before = time.time()
    await scene.passed(before + WINDOW_SECONDS)
    os.kill(doomed, signal.SIGKILL)
    killed = time.time()
    held = scene.journal.running(doomed)
    waited = [await scene.started(job, since=killed) - killed for job in held]
    await scene.passed(killed + WINDOW_SECONDS)
    rates = ends(scene, set(others), before), ends(scene, set(others), killed)
    figure(f"its {len(waited)} jobs started again after {min(waited):.2f} to {max(waited):.2f} s")
    figure(
        f"the others ended {rates[0]} jobs in {WINDOW_SECONDS} s before and {rates[1]} after: {rates[1] / rates[0]:.2f}"
    )
    assert max(waited) <= AGAIN_SECONDS
    assert rates[1] / rates[0] >= RATE

    await scene.completed(enqueued, seconds=30)
    again = [line for line in scene.starts() if line.id in held]
    assert len(again) == 2 * len(held), "and once only"
    (message,) = [
        line
        for line in parent.log
        if line["event"] == "jobs of a dead worker process were handed back"
    ]
    back = set(message["job_ids"])
    assert back >= held, "those that it ran"
    assert message["count"] == len(back) <= CONCURRENCY, (
        "and those that it had fetched, or had ended and not recorded"
    )
    (died,) = [line for line in parent.log if line["event"] == "worker process died"]
    assert (died["pid"], died["by"]) == (doomed, "SIGKILL")
    await scene.until(lambda: len(parent.children()) == 4, "its place is filled again")
    parent.terminate()
    assert await parent.ended() == 0


@pytest.mark.parametrize(
    ("dies", "max_stalled", "by"),
    [
        ("exit", 1, "exit code 9"),
        ("segv", 1, "SIGSEGV"),
        ("exit", 0, "exit code 9"),
        ("exit", 2, "exit code 9"),
    ],
)
async def test_a_job_that_kills_its_process_starts_max_stalled_plus_one_times_and_fails(
    scene: Scene, figure: Callable[[str], None], dies: str, max_stalled: int, by: str
) -> None:
    """With one job at once per process nobody runs beside it, and so nobody else is counted."""
    parent = await scene.hire(processes=2, concurrency=1, max_stalled=max_stalled, **FAST)
    *before, poison = await scene.enqueue(*[{"ms": 50}] * 5, {"dies": dies})
    after = await scene.enqueue(*[{"ms": 50}] * 20)

    async def failed() -> bool:
        return await scene.store.client.zscore("bull:chaos:failed", poison) is not None

    await scene.until(failed, "it has failed")
    job = await scene.store.client.hgetall(f"bull:chaos:{poison}")
    starts = len(scene.journal.starts(of=poison))
    figure(f"{dies}, max_stalled {max_stalled}: {starts} starts, then {job['failedReason']!r}")
    assert starts == max_stalled + 1
    assert job["failedReason"].endswith("job stalled more than allowable limit")
    died = [line["by"] for line in parent.log if line["event"] == "worker process died"]
    assert died == [by] * starts

    others = {*before, *after}
    await scene.until(lambda: scene.journal.ended() == others, "the others have run")
    await scene.until(lambda: len(parent.children()) == 2, "both places are filled again")
    assert not any([await scene.store.client.hexists(f"bull:chaos:{job}", "stc") for job in others])
    parent.terminate()
    assert await parent.ended() == 0


async def test_sigterm_to_the_parent_drains_all(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    """Whoever signals the children, too, as some service managers do, does not make it a second
    signal.
    """
    parent = await scene.hire(processes=4, **FAST)
    running = await scene.enqueue(*[{"ms": 1500}] * 20)
    await scene.until(lambda: len(scene.starts()) == 20, "all run")
    shares = sorted(len(scene.journal.running(pid)) for pid in parent.children().values())
    waiting = await scene.enqueue(*[{"ms": 10}] * 10)
    below = parent.below()
    parent.terminate()
    for pid in parent.children().values():
        os.kill(pid, signal.SIGTERM)
    assert await parent.ended() == 0
    await gone(scene, below)
    assert scene.journal.ended() == set(running)
    assert set(await scene.store.client.lrange("bull:chaos:wait", 0, -1)) == set(waiting)
    figure(
        f"4 processes with {shares} jobs: all {len(running)} ended, {len(waiting)} left waiting, exit code 0"
    )


async def test_what_does_not_finish_is_handed_back_and_the_exit_code_says_so(scene: Scene) -> None:
    parent = await scene.hire(processes=2, shutdown_timeout_seconds=0.3, **FAST)
    enqueued = await scene.enqueue(*[{"ms": 60_000}] * 4)
    await scene.until(lambda: len(scene.starts()) == 4, "all run")
    parent.terminate()
    assert await parent.ended() == 5
    assert set(await scene.store.client.lrange("bull:chaos:wait", 0, -1)) == set(enqueued)
    for job in enqueued:
        fields = await scene.store.client.hgetall(f"bull:chaos:{job}")
        assert "atm" not in fields
        assert "stc" not in fields


async def test_a_second_signal_ends_the_parent_and_its_processes_and_hands_their_jobs_back(
    scene: Scene,
) -> None:
    parent = await scene.hire(processes=2, **SLOW)
    enqueued = await scene.enqueue({"ms": 60_000})
    await scene.until(scene.starts, "it runs")
    below = parent.below()
    parent.terminate()
    await scene.until(
        lambda: any(line["event"] == "parent stopping" for line in parent.log), "it stops"
    )
    parent.terminate()
    assert await parent.ended() == 5
    await gone(scene, below)
    assert await scene.store.client.lrange("bull:chaos:wait", 0, -1) == [*enqueued]


async def test_processes_whose_parent_is_killed_drain_and_end(scene: Scene) -> None:
    parent = await scene.hire(processes=2, **FAST)
    enqueued = await scene.enqueue(*[{"ms": 500}] * 10)
    await scene.until(lambda: len(scene.starts()) == 10, "all run")
    below = parent.below()
    parent.kill()
    await gone(scene, below)
    await scene.completed(enqueued)
    assert scene.each_started_once(enqueued)
    assert sum(line["event"] == "worker stopped" for line in parent.log) == 2


async def test_rolling_restarts_under_load_lose_nothing_and_spend_no_attempt(
    scene: Scene, restarts: int, figure: Callable[[str], None]
) -> None:
    """One process after the other gets SIGTERM, drains, and a new one takes its place; the producer
    never rests.
    """
    parent = await scene.hire(processes=4, **FAST)
    enqueued: list[str] = []
    over = asyncio.Event()

    async def produce() -> None:
        while not over.is_set():
            enqueued.extend(await scene.enqueue(*({"ms": ms} for ms in (1, 20, 50, 100, 200))))
            await scene.passed(time.time() + 0.05)

    producing = asyncio.create_task(produce(), name="the producer")
    began = time.monotonic()
    stopped: set[str] = set()
    for _ in range(restarts):
        await scene.until(
            lambda: len(parent.children().keys() - stopped) >= 3,
            "three serve, and nobody asked them to stop",
        )
        oldest, pid = next(
            (name, pid) for name, pid in parent.children().items() if name not in stopped
        )
        await scene.until(lambda: scene.journal.starts(by=pid), "it has worked")
        os.kill(pid, signal.SIGTERM)
        stopped.add(oldest)
    await scene.until(lambda: len(parent.children().keys() - stopped) == 4, "all places are filled")
    over.set()
    await producing
    seconds = time.monotonic() - began
    await scene.completed(enqueued, seconds=30)
    parent.terminate()
    assert await parent.ended() == 0

    jobs = [await scene.store.client.hgetall(f"bull:chaos:{job}") for job in enqueued]
    assert {job["atm"] for job in jobs} == {"1"}
    assert not any("stc" in job for job in jobs)
    assert scene.each_started_once(enqueued)
    ended = [line["by"] for line in parent.log if line["event"] == "worker process ended"]
    assert ended == ["exit code 0"] * (restarts + 4)
    figure(
        f"{restarts} restarts in {seconds:.0f} s under {len(enqueued)} jobs: each ran once, none lost, no attempt spent"
    )


@pytest.mark.timing
async def test_health_turns_red_when_a_worker_hangs_and_green_when_it_goes_on(
    scene: Scene, at_length: bool, figure: Callable[[str], None]
) -> None:
    """By what is recorded: the moments at which `corral health` was asked, in a process of its own."""
    if not at_length:
        pytest.skip("takes half a minute; TEST_LONG=1 runs it")
    worker = await scene.hire(**FAST)

    async def changed(code: int) -> float:
        """Ask until this is the exit code; returns Unix seconds of the question that it answered."""
        async with asyncio.timeout(30):
            while True:
                asked = time.time()
                if await asyncio.to_thread(scene.health) == code:
                    return asked

    await changed(0)
    os.kill(worker.pid, signal.SIGSTOP)
    hung = time.time()
    red = await changed(1) - hung
    os.kill(worker.pid, signal.SIGCONT)
    green = await changed(0) - hung - red
    figure(f"red after {red:.1f} s, green {green:.1f} s after that")
    assert red <= 15 + 3
    assert green <= 3 + 3


NAMESPACE = (
    "unshare",
    "--pid",
    "--fork",
    "--mount-proc",
    *(() if os.geteuid() == 0 else ("--user", "--map-root-user")),
)


@pytest.fixture
def namespace() -> tuple[str, ...]:
    """What runs a command as PID 1 of a process namespace of its own."""
    try:
        able = (
            subprocess.run(
                [*NAMESPACE, "true"], capture_output=True, timeout=10, check=False
            ).returncode
            == 0
        )
    except FileNotFoundError:
        able = False
    if not able:
        if os.environ.get("CI") == "true" and os.geteuid() == 0:
            pytest.fail("unshare cannot make a process namespace, although we are root")
        pytest.skip("unshare cannot make a process namespace here")
    return NAMESPACE


async def test_as_pid_1_it_leaves_no_zombie_and_exits_0_on_sigterm(
    scene: Scene, namespace: tuple[str, ...], figure: Callable[[str], None]
) -> None:
    """It inherits what its workers' jobs leave behind, and collects it."""
    unshared: Worker = await scene.hire(processes=2, under=namespace, **FAST)
    (first,) = psutil.Process(unshared.pid).children()
    orphans: set[psutil.Process] = set()

    def inherited() -> bool:
        orphans.update(child for child in first.children() if child.name() == "sleep")
        return len(orphans) == 6

    enqueued = await scene.enqueue(*[{"orphans": 3}] * 2)
    await scene.until(inherited, "what the jobs left has come to PID 1")
    await gone(scene, list(orphans))
    workers = [child for child in first.children() if child.status() != psutil.STATUS_ZOMBIE]
    assert first.children() == workers
    assert len(workers) == 2
    await scene.completed(enqueued)
    below = unshared.below()
    first.terminate()
    assert await unshared.ended() == 0
    await gone(scene, below)
    figure(f"as PID 1: {len(orphans)} orphans collected, no zombie, exit code 0 on SIGTERM")
