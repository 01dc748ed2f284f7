"""A blocking producer that lives as long as its program: threads, forks, servers that fork."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

import corral
from corral.embedded.server import attach, embedded_store
from corral.errors import SchedulerUnusable

SECONDS = 60.0
"""How long a program of these tests may take, its end included: many start at once on a busy
machine.
"""
JOBS = 1_000

HEAD = """
import asyncio, multiprocessing, os, sys, threading
import corral
jobs = corral.connect_blocking().__enter__()  # nothing else holds it, and nothing ever leaves it


def enqueue(who, count):
    for n in range(count):
        assert jobs.enqueue("acme-letters", {"text": f"{who} {n}"}).created


def fork(run):
    pid = os.fork()
    if pid == 0:
        run()
        sys.exit(0)  # as any program ends: with what is registered for the exit, and with the garbage collector
    return pid


def ended(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


"""

AT_MODULE_LEVEL = """
enqueue("module", 1000)
"""

IN_THREADS = """
threads = [threading.Thread(target=enqueue, args=(f"thread-{n}", 100)) for n in range(10)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""

FORKED_BEFORE_THE_FIRST_CALL = """
pids = [fork(lambda n=n: enqueue(f"child-{n}", 200)) for n in range(4)]
enqueue("parent", 200)
assert ended(pids) == [0] * 4
"""

FORKED_BETWEEN_CALLS = """
enqueue("before", 100)
busy = threading.Thread(target=enqueue, args=("thread", 200))  # a call is on its way at each fork
busy.start()
pids = [fork(lambda n=n: enqueue(f"child-{n}", 150)) for n in range(4)]
enqueue("parent", 100)
busy.join()
assert ended(pids) == [0] * 4
"""

FORKED_AGAIN_WITH_THREADS = """
def child(n):
    enqueue(f"child-{n}", 100)
    grandchild = fork(lambda: enqueue(f"grandchild-{n}", 100))
    threads = [threading.Thread(target=enqueue, args=(f"child-{n}-thread-{t}", 100)) for t in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended([grandchild]) == [0]

enqueue("parent", 200)
assert ended([fork(lambda n=n: child(n)) for n in range(2)]) == [0] * 2
"""

IN_A_POOL = """
enqueue("before", 100)
with multiprocessing.get_context("fork").Pool(4) as pool:
    pool.starmap(enqueue, [(f"pool-{n}", 50) for n in range(16)])
enqueue("after", 100)
"""

LEFT_IN_A_CHILD = """
with corral.connect_blocking() as own:
    jobs = own
    enqueue("before", 300)
    pid = os.fork()
    if pid == 0:
        enqueue("child", 400)
    else:
        assert ended([pid]) == [0]
        enqueue("parent", 300)
"""

PROGRAMS = {
    name.lower(): text
    for name, text in globals().items()
    if name.startswith(("AT_", "IN_", "FORKED_", "LEFT_")) and isinstance(text, str)
}


@pytest.fixture
def environment(store_url: str, acme: Path, real_plugins: str) -> dict[str, str]:
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_", "COVERAGE_"))
    }
    # From 3.12 on Python warns of every fork in a process that has threads.
    quiet = "error,ignore:This process:DeprecationWarning"
    return own | {
        "PYTHONPATH": str(acme),
        "PYTHONWARNINGS": quiet,
        "REDIS_URL": store_url,
        "CORRAL_ENV": "production",
        "CORRAL_DISABLED_PLUGINS": real_plugins,
    }


@pytest.fixture
def program(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`program(source)` runs it to its end."""

    def run(source: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", source],
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


def texts(url: str) -> list[str]:
    """Those of all jobs in the store; none is there twice."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        ids = client.lrange("bull:acme-letters:wait", 0, -1)
        data = [client.hget(f"bull:acme-letters:{each}", "data") for each in ids]
    assert len(set(ids)) == len(ids)
    assert len(set(data)) == len(data)
    return [str(each) for each in data]


def unexpected(said: str) -> list[str]:
    """The lines of a program without the one warning that each of its processes logs."""
    return [
        line for line in said.splitlines() if line and "no worker serves 'acme-letters'" not in line
    ]


@pytest.mark.parametrize("name", PROGRAMS)
def test_none_of_1000_jobs_is_lost_or_doubled_and_the_program_ends(
    program: Any, store_url: str, name: str
) -> None:
    ran = program(HEAD + PROGRAMS[name])
    assert (ran.returncode, unexpected(ran.stderr), unexpected(ran.stdout)) == (0, [], [])
    assert len(texts(store_url)) == JOBS


@pytest.mark.parametrize(
    "options", [("--workers", "3"), ("--workers", "2", "--threads", "4")], ids=["sync", "gthread"]
)
def test_so_it_is_below_gunicorn_with_an_application_that_is_loaded_before_its_workers(
    environment: dict[str, str], store_url: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "acme_web.py").write_text(
        "import corral\n"
        "jobs = corral.connect_blocking().__enter__()\n"
        'jobs.enqueue("acme-letters", {"text": "the parent"})\n'
        "def application(environ, start_response):\n"
        '    made = jobs.enqueue("acme-letters", {"text": environ["QUERY_STRING"]})\n'
        '    start_response("200 OK", [])\n'
        "    return [made.id.encode()]\n",
        "utf-8",
    )
    with served(tmp_path, environment, *options) as (path, server):
        with ThreadPoolExecutor(8) as clients:
            made = list(clients.map(lambda n: ask(path, f"request-{n}"), range(JOBS - 1)))
        server.send_signal(signal.SIGTERM)
        assert server.wait(SECONDS) == 0
    assert len(set(made)) == JOBS - 1
    assert len(texts(store_url)) == JOBS
    assert "Traceback" not in (tmp_path / "gunicorn.log").read_text("utf-8")


@contextlib.contextmanager
def served(
    folder: Path, environment: dict[str, str], *options: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """gunicorn on a unix socket; yields the socket and the process."""
    listener = socket.socket(socket.AF_UNIX)
    path = str(folder / "web")
    listener.bind(path)
    listener.listen(64)
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--preload",
        "--bind",
        f"fd://{listener.fileno()}",
        *options,
    ]
    with (folder / "gunicorn.log").open("wb") as log, listener:
        server = subprocess.Popen(
            [*command, "--chdir", str(folder), "acme_web:application"],
            env=environment | {"PYTHONWARNINGS": "default"},
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )
        try:
            yield path, server
        finally:
            if server.poll() is None:
                server.kill()
                server.wait(SECONDS)


def ask(path: str, query: str) -> str:
    """What is answered to one request."""
    with contextlib.closing(http.client.HTTPConnection("web", timeout=SECONDS)) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(path)
        connection.request("GET", f"/?{query}")
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()


class TestWhatAChildInherits:
    def test_its_parents_connections_are_neither_used_nor_closed(self, program: Any) -> None:
        """The parent goes on with the same connections, by the ids that the store gave them."""
        ran = program(
            HEAD
            + """
import redis
client = redis.Redis.from_url(os.environ["REDIS_URL"])
enqueue("before", 3)
before = {each["id"] for each in client.client_list() if each["lib-name"] == "corral"}
assert before
assert ended([fork(lambda: enqueue("child", 3)) for n in range(3)]) == [0] * 3
enqueue("after", 3)
assert {each["id"] for each in client.client_list() if each["lib-name"] == "corral"} == before
"""
        )
        assert (ran.returncode, unexpected(ran.stderr)) == (0, [])

    def test_an_asynchronous_scheduler_says_in_one_sentence_that_it_is_the_parents(
        self, program: Any, store_url: str
    ) -> None:
        ran = program("""
import asyncio, os, corral
from corral.errors import SchedulerUnusable

async def main():
    async with corral.connect() as jobs:
        await jobs.enqueue("acme-letters", {"text": "before"})
        pid = os.fork()
        if pid == 0:
            calls = jobs.enqueue("acme-letters", {}), jobs.enqueue_many("acme-letters", [{}]), jobs.unschedule("acme-letters", "x")
            for call in calls:
                try:
                    await call
                except SchedulerUnusable as error:
                    print(error, flush=True)
            os._exit(0)
        await asyncio.to_thread(os.waitpid, pid, 0)
        await jobs.enqueue("acme-letters", {"text": "after"})

asyncio.run(main())
""")
        assert ran.returncode == 0, ran.stderr
        said = "this scheduler was connected before the process was forked, and is the parent's"
        assert unexpected(ran.stdout) == [said] * 3
        assert len(texts(store_url)) == 2

    def test_a_child_that_leaves_the_block_leaves_the_parents_embedded_store_running(
        self, program: Any, data_dir: Path
    ) -> None:
        ran = program(
            """
import asyncio, os, corral

async def main():
    async with corral.connect() as jobs:
        await jobs.enqueue("acme-letters", {"text": "before"})
        pid = os.fork()
        if pid:
            await asyncio.to_thread(os.waitpid, pid, 0)
            assert (await jobs.enqueue("acme-letters", {"text": "after"})).created
            print("parent")
    if pid == 0:
        os._exit(0)

asyncio.run(main())
""",
            REDIS_URL="",
            CORRAL_ENV="development",
            CORRAL_DATA_DIR=str(data_dir),
        )
        assert (ran.returncode, unexpected(ran.stdout)) == (0, ["parent"]), ran.stderr

    def test_each_process_is_a_user_of_the_embedded_store_of_its_own(
        self, program: Any, data_dir: Path
    ) -> None:
        """The parent leaves first, and the store stays for the child; the child leaves, and no
        server is left.
        """
        ran = program(
            """
import os, sys, corral
read, write = os.pipe()
with corral.connect_blocking() as jobs:
    jobs.enqueue("acme-letters", {"text": "parent"})
    pid = os.fork()
    if pid == 0:
        os.close(write)
        assert jobs.enqueue("acme-letters", {"text": "child"}).created
        assert os.read(read, 1) == b""  # the parent has left
        assert jobs.enqueue("acme-letters", {"text": "child alone"}).created
if pid:
    os.close(read)
    os.close(write)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
            REDIS_URL="",
            CORRAL_ENV="development",
            CORRAL_DATA_DIR=str(data_dir),
        )
        assert (ran.returncode, unexpected(ran.stderr)) == (0, [])
        with attach(data_dir) as running:
            assert running is None
        with embedded_store(data_dir) as url:
            assert len(texts(url)) == 3


class TestOneSentence:
    @pytest.mark.asyncio
    async def test_each_time_where_a_scheduler_is_closed(
        self, workshop: Any, acme: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(acme)
        monkeypatch.setenv("REDIS_URL", workshop.url)
        async with corral.connect() as jobs:
            await jobs.enqueue("acme-letters", {})
        with corral.connect_blocking() as blocking:
            blocking.enqueue("acme-letters", {})
        for _ in range(3):
            with pytest.raises(SchedulerUnusable, match="this scheduler is closed"):
                await jobs.enqueue("acme-letters", {})
            with pytest.raises(SchedulerUnusable, match="this scheduler is closed"):
                blocking.enqueue("acme-letters", {})

    @pytest.mark.parametrize("used", [True, False])
    @pytest.mark.parametrize("ended", [True, False])
    def test_each_time_where_a_scheduler_is_used_in_another_event_loop(
        self, store_url: str, acme: Path, monkeypatch: pytest.MonkeyPatch, used: bool, ended: bool
    ) -> None:
        monkeypatch.syspath_prepend(acme)
        monkeypatch.setenv("REDIS_URL", store_url)
        connection = corral.connect()
        with asyncio.Runner() as first:
            jobs = first.run(connection.__aenter__())
            if used:
                first.run(jobs.enqueue("acme-letters", {}))
            if ended:
                first.run(connection.__aexit__(None, None, None))
            for _ in range(3):
                with (
                    pytest.raises(SchedulerUnusable, match="belongs to another event loop"),
                    asyncio.Runner() as other,
                ):
                    other.run(asyncio.wait_for(jobs.enqueue("acme-letters", {}), 5))
            if not ended:
                first.run(jobs.enqueue("acme-letters", {}))
                first.run(connection.__aexit__(None, None, None))

    def test_where_a_blocking_call_is_made_on_the_schedulers_own_thread(
        self, program: Any, acme: Path
    ) -> None:
        plugin = acme / "acme_letters.py"
        hook = "\n\n@hookimpl\ndef corral_enqueuing():\n    import acme_program\n    acme_program.again()\n"
        plugin.write_text(plugin.read_text("utf-8") + hook, "utf-8")
        (acme / "acme_program.py").write_text(
            "import corral\n"
            "from corral.errors import SchedulerUnusable\n"
            "jobs = corral.connect_blocking().__enter__()\n"
            "def again():\n"
            "    try:\n"
            "        jobs.enqueue('acme-letters', {})\n"
            "    except SchedulerUnusable as error:\n"
            "        print(error)\n",
            "utf-8",
        )
        ran = program(
            "import acme_program; acme_program.jobs.enqueue('acme-letters', {'text': 'x'})"
        )
        assert ran.returncode == 0, ran.stderr
        (line,) = unexpected(ran.stdout)
        assert line.startswith("a blocking scheduler is called on its own event loop, ")


ENDS = {
    "kept by nobody": "jobs = await corral.connect().__aenter__(); gc.collect()",
    "kept in a local": "connection = corral.connect(); jobs = await connection.__aenter__()",
    "kept in a global": "global connection; connection = corral.connect(); jobs = await connection.__aenter__()",
    "left to a stack": "stack = contextlib.AsyncExitStack(); jobs = await stack.enter_async_context(corral.connect())",
}


@pytest.mark.parametrize("how", ENDS)
def test_connect_left_open_is_not_collected_and_ends_with_asyncio_run(
    program: Any, store_url: str, how: str
) -> None:
    ran = program(f"""
import asyncio, contextlib, corral, gc

async def main():
    {ENDS[how]}
    for n in range(10):
        await asyncio.sleep(0)
        await jobs.enqueue("acme-letters", {{"text": str(n)}})

asyncio.run(main())
print("ended")
""")
    assert (ran.returncode, unexpected(ran.stderr), unexpected(ran.stdout)) == (0, [], ["ended"])
    assert len(texts(store_url)) == 10
    with redis.Redis.from_url(store_url) as client:
        assert client.hgetall("corral:bull:alive") == {}, "it was closed in order"


@pytest.mark.timing
def test_a_store_that_hangs_keeps_no_program_from_its_end(program: Any, data_dir: Path) -> None:
    with embedded_store(data_dir) as url:
        with redis.Redis.from_url(url) as client:
            pid = client.info("server")["process_id"]
        try:
            first = "import atexit, signal, time\natexit.register(lambda: print(time.monotonic() - began))\n"  # called last
            last = (
                f"enqueue('before', 1)\nos.kill({pid}, signal.SIGSTOP)\nbegan = time.monotonic()\n"
            )
            ran = program(first + HEAD + last, REDIS_URL=url)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert ran.returncode == 0, ran.stderr
    (took,) = map(float, unexpected(ran.stdout))
    print(f"ended {took:.2f} s after its last line, with a store that does not answer")
    assert took <= 2.5
