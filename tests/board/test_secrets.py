"""25 secrets enter by every way; none is seen on board, metrics, logs or spans (S-17)."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pydantic.types
import pytest
import redis
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import corral.loggers
import corral.observe.logs
import corral.redactor
import corral.settings
from board.asking import DIGEST, FORM, HERE, PAGE, Browser, Host, token_in
from corral.app.installed import read_installed
from corral.app.producing import open_scheduler
from corral.board import Board
from corral.board.board_settings import BoardSettings
from corral.board.pages import live_stream
from corral.board.routes import ROUTES
from corral.errors import PayloadRefused
from corral.observe import traces
from corral.observe.logs import configure_logs
from corral.redactor import Redactor
from corral.settings import Settings, WorkerSettings
from corral.worker.worker import Worker

PLUGIN = '''
"""A queue whose jobs carry secrets, and whose processor tells them to everybody."""

import logging
from typing import Any

import structlog
from pydantic import BaseModel, Field, SecretStr, field_validator

from corral import Fail, Job, JobOptions, Payload, Processor, Queue, hookimpl

log = structlog.get_logger("vault")
repeated = ""


class Holder(BaseModel):
    code: SecretStr = SecretStr("")


class Entry(Payload):
    how: str = "succeed"
    marked: SecretStr = SecretStr("")
    holder: Holder = Holder()
    many: list[SecretStr] = []
    by_name: dict[str, SecretStr] = {}
    perhaps: SecretStr | None = None
    plainly: str = Field(default="", json_schema_extra={"writeOnly": True})
    reset_token: str = ""
    password: str = ""
    api_key: str = ""
    pin: int = 0
    pem_secret: str = ""
    headers: dict[str, Any] = {}
    users: list[dict[str, Any]] = []
    source: str = ""
    note: str = ""

    @field_validator("note")
    @classmethod
    def _is_no_shout(cls, value: str, info: Any) -> str:
        if value.isupper():
            raise ValueError(f"do not shout {value}, {info.data.get('password')}")
        return value


vault = Queue("vault", Entry, options=JobOptions(attempts=1))


@hookimpl
def corral_queues() -> list[Queue]:
    return [vault]


async def tell(job: Job[Entry]) -> Any:
    payload = job.payload
    log.debug("debugged", payload=payload, everything=repeated, reset_token=payload.reset_token)
    log.info("seen " + repeated)
    logging.getLogger("vault").error("seen %s", repeated)
    job.log("seen " + repeated)
    for line in repeated.splitlines():
        job.log(line)
    job.progress({"seen": repeated, "pin": payload.pin, "deep": [payload.pin, repeated]})
    if payload.how == "fail":
        raise Fail(repeated)
    if payload.how == "retry" and job.attempt == 1:
        raise ValueError(repeated + repr(payload))
    if payload.how == "chain":
        try:
            raise ValueError("password='kanarie25x'" + repeated)
        except ValueError as error:
            raise RuntimeError("x" * 900 + repeated) from error
    secrets = {"pin": payload.pin, "apiKey": payload.api_key}
    return {"seen": repeated, **secrets, "payload": repr(payload)}


@hookimpl
def corral_processors() -> list[Processor]:
    return [vault.processed_by(tell)]
'''


def canary(number: int) -> str:
    return f"kanarie{number:02d}x"


PIN = 7310440012
CANARIES: Mapping[int, str] = {
    number: str(PIN) if number == 12 else canary(number) for number in range(1, 26)
}
"""What to look for, per secret: some are spelt differently in different places."""
PAYLOAD = {
    "marked": canary(1),
    "holder": {"code": canary(2)},
    "many": ["first", canary(3)],
    "byName": {"ada": canary(4)},
    "perhaps": canary(5),
    "plainly": canary(6),
    "resetToken": canary(7),
    "password": f"\\ünder<{canary(8)}&\"quoted'",
    "apiKey": canary(9),
    "pin": PIN,
    "pemSecret": f"-----BEGIN KEY-----\n{canary(10)}AbCd\n{canary(11)}/eF+g==\n-----END KEY-----\n",
    "headers": {
        "Authorization": f"Bearer {canary(13)}",
        "x-api-key": [canary(14)],
        "cookie": {f"{canary(15)}": 1},
    },
    "users": [{"name": "ada", "accessToken": canary(16)}],
    "source": f"postgres://ada:{canary(17)}@db/x",
}
OPTIONS = {"attempts": 2, "auth": {"password": canary(18)}, "url": f"redis://:{canary(19)}@host"}
ENVIRONMENT = {
    "CORRAL_DATABASE_URL": f"postgresql+asyncpg://ada:{canary(20)}@db/x",
    "CORRAL_BOARD_PASSWORD": str(DIGEST).replace(str(DIGEST).split(":")[4], canary(21) + "A" * 12),
    "CORRAL_BOARD_METRICS_TOKEN": canary(22) + "-" * 32,
}
REPEATED = " ".join(
    str(each) for each in (*map(CANARIES.get, (1, 2, 3, 4, 5, 6, 7, 9, 12, 14, 15, 16)),)
)


def everything() -> str:
    """All secrets, as a careless processor writes them."""
    spelt = [
        REPEATED,
        PAYLOAD["password"],
        PAYLOAD["pemSecret"],
        PAYLOAD["source"],
        json.dumps(PAYLOAD),
    ]
    quoted = json.dumps(spelt[1])
    return f"{spelt[0]} {spelt[1]} {quoted}\n{spelt[2]}\n{spelt[3]} {spelt[4]} https://h/?access_token={canary(24)}"


@pytest.fixture(params=[True, False], ids=["masked", "the control, unmasked"])
def is_masked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Switches masking off: without it, the test must find the secrets that it looks for."""
    if not request.param:
        monkeypatch.setattr(Redactor, "text", lambda _self, text: text)
        monkeypatch.setattr(Redactor, "broken", lambda _self, text: text)
        monkeypatch.setattr(Redactor, "value", lambda _self, value, _depth=0: value)
        monkeypatch.setattr(pydantic.types, "_secret_display", str)
        for module in (corral.redactor, corral.settings, corral.loggers):
            monkeypatch.setattr(module, "masked", str)
        for module in (corral.loggers, corral.observe.logs):
            monkeypatch.setattr(module, "is_secret_name", lambda _name: False)
    return bool(request.param)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces, "_tracer", provider.get_tracer("test"))
    monkeypatch.setattr(traces._provider, "_is_configured", True)
    return exporter


@pytest.fixture
def vault(tmp_path: Path, on: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The installed plugin's module; the environment has secrets, too."""
    metadata = tmp_path / "board_test_vault-1.0.dist-info"
    metadata.mkdir()
    (tmp_path / "board_test_vault.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: board-test-vault\nVersion: 1.0\n"
    )
    (metadata / "entry_points.txt").write_text("[corral.queues]\nvault = board_test_vault\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("board_test_vault", None)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("REDIS_URL", on.replace("unix://", f"unix://default:{canary(23)}@"))
    __import__("board_test_vault")
    monkeypatch.setattr(sys.modules["board_test_vault"], "repeated", everything())
    yield sys.modules["board_test_vault"]
    sys.modules.pop("board_test_vault", None)


async def fill(vault: Any, store: redis.Redis, wait_until: Any) -> list[str]:
    """Make one job of every outcome; returns their ids."""
    installed = read_installed()
    assert installed.settings.redis_url
    url = installed.settings.redis_url.get_secret_value()
    ids = ["succeed", "fail", "retry", "chain"]
    async with open_scheduler(installed, url) as jobs:
        for how in ids:
            await jobs.enqueue(vault.vault, {**PAYLOAD, "how": how}, job_id=how, attempts=2)
        with pytest.raises(PayloadRefused) as refused:
            await jobs.enqueue(vault.vault, {**PAYLOAD, "note": "LOUD"})
        assert canary(8) in str(refused.value), "the producer gets the validator's own words"

        def write(job_id: str, data: str, container: str = "wait", **fields: Any) -> None:
            store.hset(
                f"bull:vault:{job_id}",
                mapping={"data": data, "opts": json.dumps(OPTIONS), **fields},
            )
            store.lpush(f"bull:vault:{container}", job_id)
            ids.append(job_id)

        whole = json.dumps({**PAYLOAD, "how": "succeed"})
        write("loud", json.dumps({**PAYLOAD, "note": "LOUD"}))
        write("truncated", whole[:-40])
        write("listed", json.dumps([PAYLOAD]))
        write("number", "7")
        write(
            "doomed",
            whole,
            defa=f"it was {everything()}",
            name=f"mail {canary(9)}",
            deid=canary(16),
        )
        write("lost", whole, "active", parentKey=f"bull:other:{canary(14)}", processedOn="1")
        store.sadd("bull:vault:stalled", "lost")
        store.zadd("bull:vault:marker", {"0": 0})
        worker = Worker(
            vault.corral_processors(),
            url=url,
            prefix="bull",
            settings=WorkerSettings(stalled_interval_seconds=0.1, max_stalled=0),
            plugins=installed.plugins,
            jobs=jobs,
        )
        running = asyncio.create_task(worker.run())
        await wait_until(
            lambda: (
                store.zcard("bull:vault:completed") + store.zcard("bull:vault:failed") == len(ids)
            ),
            "all have ended",
        )
        worker.stop()
        await asyncio.wait_for(running, 15)
    # what a client in Node writes when a job fails: it masks nothing
    store.hset("bull:vault:fail", "failedReason", f"{everything()} and more")
    store.hset(
        "bull:vault:fail",
        "stacktrace",
        json.dumps([everything()[: number * 40] for number in range(1, 20)]),
    )
    store.zadd("bull:vault:failed", {"fail": 4e12})
    return ids


async def seen_on(board: Board, ids: list[str]) -> AsyncIterator[tuple[str, str]]:
    """Everything the board answers, to every reader: (where, text)."""
    data = {"accept": "application/json"}
    for browser, accept in ((Browser(board, "viewer"), data), (Browser(board, "admin"), PAGE)):
        for route in (each for each in ROUTES if each.method == "GET"):
            for job_id in ids if "job_id" in route.pattern else ids[:1]:
                target = route.pattern.format(queue="vault", job_id=job_id)
                for query in (
                    "",
                    *(f"?state={each}" for each in ("failed", "completed")),
                    "?q=how",
                ):
                    if query and route.pattern not in {"/queues/{queue}", "/search"}:
                        continue
                    more = {"chunks": 2} if route.pattern == "/live" else {}
                    got = await browser.ask("GET", target + query, headers=accept, **more)
                    assert got.status in {200, 403}, (target, got.status, got.text)
                    yield f"{accept['accept'][:16]} {target}{query}", got.text
    token = token_in((await browser.see("/queues/vault/add")).text)
    typed = {
        "data.marked": canary(1),
        "data.password": "pass" + canary(8),
        "data.note": "LOUD",
        "data.pin": "x",
    }
    for accept in (PAGE, data):
        for target in ("/queues/vault/add", "/queues/vault/jobs/fail/edit"):
            for fields in (typed, {**typed, "data.pin": str(PIN)}):
                body = {"csrf": token, **fields}
                got = await browser.ask(
                    "POST", target, headers={**FORM, **accept, **HERE}, body=body
                )
                assert got.status == 422, got.text
                yield f"POST {target}", got.text
        for target in ("/queues/vault/remove", "/queues/vault/jobs/fail/remove"):
            body = {"csrf": token, "id": "fail"}
            yield (
                target,
                (await browser.ask("POST", target, headers={**accept, **HERE}, body=body)).text,
            )


def hits(places: list[tuple[str, str]]) -> dict[int, set[str]]:
    """Which secret was seen where."""
    found: dict[int, set[str]] = {}
    for where, text in places:
        spelt = {text, unescape(text)}
        for number, secret in CANARIES.items():
            if any(secret in each for each in spelt):
                found.setdefault(number, set()).add(where)
    return found


@pytest.mark.asyncio
async def test_no_secret_is_seen_anywhere(
    is_masked: bool,
    vault: Any,
    store: redis.Redis,
    host: Host,
    spans: InMemorySpanExporter,
    monkeypatch: pytest.MonkeyPatch,
    wait_until: Any,
) -> None:
    monkeypatch.setattr(live_stream, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(live_stream, "TICK_SECONDS_PER_PAGE", 0.01)
    said = io.StringIO()
    configure_logs(Settings(log_level="DEBUG", log_format="json"), said)
    ids = await fill(vault, store, wait_until)
    board = Board(authorize=host.who)
    places = [each async for each in seen_on(board, ids)]
    await board.close()
    places += [("the logs", line) for line in said.getvalue().splitlines()]
    places += [("a span", span.to_json()) for span in spans.get_finished_spans()]
    assert len(spans.get_finished_spans()) > 4
    places += [("the audit", str(store.xrange("corral:bull:audit")))]
    payload = vault.Entry(**{**PAYLOAD, "note": ""})
    settings = Settings(), BoardSettings()
    places += [("repr", f"{each!r} {each}") for each in (payload, *settings)]
    for job_id in ids:
        fields = store.hgetall(f"bull:vault:{job_id}")
        if job_id != "fail":
            places += [(f"failedReason of {job_id}", fields.get(b"failedReason", b"").decode())]
            places += [
                (f"stacktrace of {job_id}", "\n".join(json.loads(fields.get(b"stacktrace", b"[]"))))
            ]
    found = hits(places)
    if is_masked:
        assert found == {}
    else:
        assert sorted(found) == sorted(CANARIES)
