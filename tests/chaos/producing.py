"""A producer process: `python -m chaos.producing URL JOURNAL PLAN [DURABILITY]` enqueues what the
plan says, and when.

It records each call before it is made, and its answer after it. It stops when the plan
ends or on SIGTERM, and waits for its calls then.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from chaos.acme_chaos import EPOCH, chaos
from chaos.processes import READY, producer
from corral import Fixed
from corral.errors import CorralError, StoreUnavailable
from corral.jobs import Durability
from corral.options import EnqueueOptions
from corral.producer import RedisJobScheduler

RETRY = Fixed(timedelta(milliseconds=100))


class Producing:
    """One plan, on its way.

    Args:
        jobs: Where it enqueues.
        journal: The file to write to.
    """

    def __init__(self, jobs: RedisJobScheduler, journal: int) -> None:
        self._jobs = jobs
        self._journal = journal
        self._calls: set[asyncio.Task[None]] = set()

    async def run(self, plan: list[dict[str, Any]], stopped: asyncio.Event) -> None:
        """Make every call at its time; returns when all have ended."""
        began = time.monotonic()
        for wish in plan:
            try:
                await asyncio.wait_for(
                    stopped.wait(), max(0.0, began + wish["at"] - time.monotonic())
                )
                break
            except TimeoutError:
                call = asyncio.create_task(self._enqueue(wish), name=wish["id"])
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)
        while self._calls:
            await asyncio.wait(self._calls)

    async def _enqueue(self, wish: dict[str, Any]) -> None:
        options: EnqueueOptions = {
            "job_id": wish["id"],
            "delay": timedelta(milliseconds=wish["delay_ms"]),
            "attempts": wish["attempts"],
            "backoff": RETRY,
        }
        self._write("enq.invoke", wish["id"])
        try:
            await self._jobs.enqueue(chaos, wish["data"], **options)
        except StoreUnavailable as error:
            self._write("enq.fail" if error.outcome == "refused" else "enq.unknown", wish["id"])
        except CorralError:
            self._write("enq.fail", wish["id"])
        else:
            self._write("enq.ok", wish["id"])

    def _write(self, event: str, job_id: str) -> None:
        now = float(os.environ[EPOCH]) + time.monotonic()
        line = {"at": now, "pid": os.getpid(), "event": event, "id": job_id}
        os.write(self._journal, json.dumps(line).encode() + b"\n")


async def main(url: str, journal: str, plan: str, durability: Durability | None = None) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    wishes = [json.loads(line) for line in Path(plan).read_text("utf-8").splitlines()]  # noqa: ASYNC240  # at start
    async with producer(url, durability) as jobs:
        print(READY, file=sys.stderr, flush=True)
        await Producing(jobs, os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)).run(
            wishes, stopped
        )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
