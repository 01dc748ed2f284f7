"""`corral worker --processes` and `corral health` as a user meets them: refusals, a burst, and what
a probe answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from corral import Payload, Queue
from corral.embedded.server import attach, embedded_store
from corral.errors import ConfigurationError

pytestmark = pytest.mark.asyncio

Ran = tuple[int, str, str]
BROKEN = "return [letters.processed_by(on_loop, using=of_worker), threaded.processed_by(on_thread)]"


class Letter(Payload):
    text: str = ""


letters = Queue("acme-letters", Letter)
NOWHERE = "unix:///nowhere/store.sock"


@pytest_asyncio.fixture
async def run(command: Any) -> Callable[..., Any]:
    """`await run("health")`: exit code, standard output, standard error."""

    async def run(*arguments: str, **environment: str | None) -> Ran:
        started = command(*arguments, **environment)
        return await asyncio.to_thread(started.wait), started.result, started.said

    return run


async def test_a_queue_that_nobody_declares_is_refused_once(run: Any) -> None:
    code, _, said = await run("worker", "acme-leters", "--processes", "3")
    assert (code, said) == (
        2,
        "error: no queue is named 'acme-leters'\n  hint: did you mean 'acme-letters'?\n",
    )


async def test_a_store_that_is_away_is_refused_once(run: Any) -> None:
    code, _, said = await run("worker", "--processes", "3", REDIS_URL=NOWHERE)
    assert code == 4
    assert said.count("is unavailable") == 1


async def test_a_catalog_that_only_workers_refuse_ends_the_parent_with_its_code(
    run: Any, acme: Path
) -> None:
    """The parent loads declarations only; processors are loaded, and refused, in its children."""
    plugin = acme / "acme_letters.py"
    plugin.write_text(
        plugin.read_text("utf-8").replace(BROKEN, "raise ImportError('no weasyprint')"), "utf-8"
    )
    code, _, said = await run("worker", "--processes", "2")
    assert code == 3
    assert "ImportError: no weasyprint" in said
    assert said.count('"event": "worker process started"') == 2, "none is started a second time"
    assert (
        '"event": "worker processes refuse their configuration: none is started any more", ' in said
    )


async def test_a_burst_ends_when_every_process_has(run: Any, workshop: Any) -> None:
    made = await workshop.producer(letters).enqueue_many(letters, [Letter(text="sleep 0.02")] * 40)
    code, _, said = await run("worker", "--burst", "--processes", "2")
    assert code == 0
    assert {await workshop.state(letters, each.id) for each in made} == {"completed"}
    assert said.count('"event": "worker process started"') == 2


async def test_ctrl_c_reaches_the_parent_and_its_children_drain(
    command: Any, workshop: Any
) -> None:
    parent = command("worker", "--processes", "2")
    await workshop.wait_until(
        lambda: parent.said.count('"event": "worker started"') == 2, "both have started"
    )
    job = await workshop.producer(letters).enqueue(letters, Letter(text="sleep 0.5"))
    await workshop.until(letters, job.id, "active")
    parent.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(parent.wait) == 0
    assert await workshop.state(letters, job.id) == "completed"


async def test_health_without_a_worker(run: Any) -> None:
    host = socket.gethostname()
    error = f"error: no worker of host {host!r} has fetched within the last 15 s\n"
    assert await run("health") == (1, "", error)
    code, out, said = await run("health", "--json")
    assert (code, json.loads(out), said) == (1, {"healthy": False, "workers": []}, error)


async def test_health_where_the_store_is_away(run: Any) -> None:
    code, out, said = await run("health", REDIS_URL=NOWHERE)
    assert (code, out) == (4, "")
    assert said.startswith("error: the store at unix:///nowhere/store.sock is unavailable")


async def test_health_never_starts_a_store(run: Any, tmp_path: Path) -> None:
    code, _, said = await run(
        "health", REDIS_URL=None, CORRAL_ENV="development", CORRAL_DATA_DIR=str(tmp_path / "none")
    )
    assert code == 4
    assert said == f"error: no store is running in '{tmp_path / 'none'}'\n"
    assert not (tmp_path / "none").exists()


async def test_health_of_a_worker_from_its_start_to_its_end(
    command: Any, run: Any, workshop: Any
) -> None:
    worker = command("worker", "acme-letters", "--concurrency", "1")
    await workshop.wait_until(lambda: "worker started" in worker.said, "it has started")
    assert (await run("health"))[0] == 0, "it waits for work"
    job = await workshop.producer(letters).enqueue(letters, Letter(text="sleep 3"))
    await workshop.until(letters, job.id, "active")
    assert (await run("health"))[0] == 0, "every slot is taken: there is nothing to fetch"

    code, out, _ = await run("health", "--json")
    (found,) = json.loads(out)["workers"]
    assert (code, found["state"], found["processes"]) == (0, "working", 0)
    assert (await run("health", "--worker", found["name"]))[0] == 0
    assert (await run("health", "--worker", "somebody-else"))[0] == 1

    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    assert (await run("health"))[0] == 1
    assert not await workshop.raw.exists("corral:bull:alive"), "who ends in order leaves no sign"


async def test_health_of_a_parent_is_that_of_all_its_processes(
    command: Any, run: Any, workshop: Any
) -> None:
    parent = command("worker", "--processes", "2")
    await workshop.wait_until(
        lambda: parent.said.count('"event": "worker started"') == 2, "both have started"
    )
    code, out, _ = await run("health", "--json")
    found = {each["name"]: each for each in json.loads(out)["workers"]}
    own = min(found, key=len)
    assert code == 0
    assert {name: each["state"] for name, each in found.items()} == {
        own: "complete",
        f"{own}.1": "working",
        f"{own}.2": "working",
    }
    code, out, _ = await run("health", "--worker", own)
    assert code == 0
    assert out.splitlines()[0].split() == ["WORKER", "LAST", "SEEN", "STATE"]

    lines = [json.loads(line) for line in parent.said.splitlines()]
    pid = next(line["pid"] for line in lines if line.get("child") == f"{own}.1")
    os.kill(pid, signal.SIGSTOP)
    await workshop.raw.hdel("corral:bull:alive", f"{own}.1")  # as its death does
    code, _, said = await run("health")
    os.kill(pid, signal.SIGCONT)
    assert (code, said) == (1, f"error: 1 of the 2 worker processes of {own!r} are at work\n")
    parent.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(parent.wait) == 0
    assert not await workshop.raw.exists("corral:bull:alive")


async def test_a_deleted_working_directory_stops_no_parent_from_replacing_a_child(
    command: Any, workshop: Any, tmp_path: Path
) -> None:
    """As a deployment does that removes the last release below the workers that run it."""
    release = tmp_path / "release"
    release.mkdir()
    parent = command("worker", "--processes", "1", cwd=release)
    await workshop.wait_until(
        lambda: parent.said.count('"event": "worker started"') == 1, "it has started"
    )
    release.rmdir()
    (child,) = psutil.Process(parent.process.pid).children()
    child.kill()
    await workshop.wait_until(
        lambda: parent.said.count('"event": "worker started"') == 2, "another has started"
    )
    job = await workshop.producer(letters).enqueue(letters, Letter(text="hello"))
    await workshop.until(letters, job.id, "completed")
    parent.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(parent.wait) == 0


@pytest.mark.parametrize("arguments", [("check",), ("queues",), ("enqueue", "acme-letters", "{}")])
async def test_every_command_runs_in_a_deleted_working_directory(
    in_process: Any,
    workshop: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
) -> None:
    release = tmp_path / "release"
    release.mkdir()
    monkeypatch.chdir(release)
    release.rmdir()
    code, _, said = await asyncio.to_thread(in_process, workshop.url, *arguments)
    assert code == 0, said


async def test_a_relative_data_directory_is_refused_there_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = tmp_path / "release"
    release.mkdir()
    monkeypatch.chdir(release)
    release.rmdir()
    refused = "the data directory '.corral' cannot be used: no such file or directory"
    with pytest.raises(ConfigurationError, match=refused), embedded_store(Path(".corral")):
        pytest.fail("it started")
    with pytest.raises(ConfigurationError, match=refused), attach(Path(".corral")):
        pytest.fail("it looked")
