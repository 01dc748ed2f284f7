"""A job of the outbox belongs to the trace in which its row was written, whichever relay carries it."""

from __future__ import annotations

import json
from datetime import timedelta
from types import MappingProxyType

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Payload, Queue
from corral.catalog import Catalog, CatalogEntry
from corral.observe import traces
from corral.plugins import PluginEntryPoint, Plugins, Provider
from corral.plugins.entry_points import PLUGINS
from corral.producer import RedisJobScheduler
from corral.sql import Outbox, OutboxRelay, Relayed

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)
ACME = Provider("acme", "1.0", "wheel")


def span(number: int) -> NonRecordingSpan:
    """A span of the application."""
    return NonRecordingSpan(
        SpanContext(number, number, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    )


async def test_the_carrier_is_taken_when_the_row_is_written(
    engine: AsyncEngine, store_url: str, raw
) -> None:
    catalog = Catalog(MappingProxyType({letters.name: CatalogEntry(letters, ACME, "")}))
    plugins = Plugins.load([PluginEntryPoint("traces", traces.__name__, PLUGINS, ACME)])
    jobs = RedisJobScheduler(
        catalog, plugins.job_hooks, url=store_url, prefix="bull", max_payload_bytes=1000
    )
    with use_span(span(1)):
        async with engine.begin() as connection:
            await Outbox(jobs).within(connection).enqueue(letters, Letter(), job_id="now")
            await (
                Outbox(jobs)
                .within(connection)
                .enqueue(letters, Letter(), job_id="later", delay=timedelta(hours=1))
            )
    relay = OutboxRelay(engine, catalog, url=store_url, prefix="bull")
    with use_span(span(2)):
        assert await relay.drain() == Relayed(jobs=2)
    for job_id in ("now", "later"):
        opts = json.loads(await raw.hget(f"bull:letters:{job_id}", "opts"))
        assert json.loads(opts["tm"]) == {"traceparent": f"00-{1:032x}-{1:016x}-01"}
    await relay.close()
    await jobs.close()
