"""The work of `corral schedules`, without its arguments and its output."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

from corral.app.installed import read_installed
from corral.app.operating import configure_command_logs
from corral.catalog import Catalog
from corral.embedded.server import open_store
from corral.errors import ConfigurationError, StoreUnavailable
from corral.inspector import DamagedKey
from corral.inspector.audit import Audit, process_identity
from corral.inspector.damage import find_damaged_keys, report_damage
from corral.store.connection import Link
from corral.store.keys import (
    DELAYED,
    EVENTS,
    QUEUE_KEYS,
    REPEAT,
    audit_key,
    queue_base,
    queue_key,
    schedule_key,
)
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError, is_missing_right
from corral.store.rights import ensure_rights
from corral.store.schedules import PRUNED, NewSchedule, Schedules, StoredSchedule, removal
from corral.worker.schedule_keeper import declared_by

__all__ = [
    "ListedSchedule",
    "list_schedules",
    "prune_schedules",
    "read_schedules",
    "remove_schedule",
    "restore_schedule",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListedSchedule:
    """A schedule of an installed queue.

    Attributes:
        queue: The queue's name.
        origin: `declared`: its queue declares it. `undeclared`: its queue did so before. `runtime`:
            a program made it.
        stored: The schedule in the store. None if no worker has started since it was declared, or
            if it was removed.
        removed: Whether an operator has removed it; workers do not make it again then.
        damaged: What is wrong with a key, if the store cannot tell about the schedule; else empty.
    """

    queue: str
    origin: Literal["declared", "undeclared", "runtime"]
    stored: StoredSchedule | None
    removed: bool = False
    damaged: str = ""


def list_schedules() -> list[ListedSchedule]:
    """List the schedules of all installed queues.

    Raises:
        CorralError: The catalog was refused, or there is no store.
    """
    return _list(prune=False)


def prune_schedules() -> list[ListedSchedule]:
    """Remove the schedules that their queues declare no longer.

    Returns:
        Those that were removed.

    Raises:
        CorralError: As `list_schedules`.
    """
    return _list(prune=True)


def remove_schedule(queue: str) -> bool:
    """Remove the schedule that a queue declares.

    It stays removed until it is restored, or declared differently.

    Returns:
        Whether there was one in the store; it stays removed in either case.

    Raises:
        CorralError: The queue is not known or declares no schedule, or there is no store.
    """

    async def remove(schedules: Schedules, new: NewSchedule) -> bool:
        return await schedules.remove(new.id, mark=removal(new.when))

    return _change(queue, "remove_schedule", remove)


def restore_schedule(queue: str) -> datetime:
    """Make the schedule that a queue declares, even if an operator has removed it.

    Returns:
        When it runs next, aware, in UTC.

    Raises:
        CorralError: As `remove_schedule`.
    """

    async def restore(schedules: Schedules, new: NewSchedule) -> datetime:
        _, next_ms = await schedules.ensure(new)
        return datetime.fromtimestamp(next_ms / 1000, UTC)

    return _change(queue, "restore_schedule", restore)


def _change(name: str, what: str, change: Callable[[Schedules, NewSchedule], Awaitable[T]]) -> T:
    installed = read_installed()
    configure_command_logs(installed.settings)
    new = declared_by(installed.catalog.get(name).queue)
    if new is None:
        raise ConfigurationError(
            f"queue {name!r} declares no schedule",
            hint="`corral schedules prune` removes those that are declared no longer",
        )

    async def run(url: str) -> T:
        link, prefix = Link(url), installed.settings.prefix
        try:
            await _ensure_changeable(link, prefix, name)
            async with report_damage(link, prefix, name):
                changed = await change(Schedules(QueueStore(link, prefix, name)), new)
            await Audit(link, prefix).write(
                process_identity("cli"), what, queue=name, before={"schedule": new.id}
            )
            return changed
        finally:
            await link.close()

    with open_store(installed.settings) as url:
        return asyncio.run(run(url))


def _list(*, prune: bool) -> list[ListedSchedule]:
    installed = read_installed()
    configure_command_logs(installed.settings)

    async def look(url: str) -> list[ListedSchedule]:
        link = Link(url)
        try:
            prune_as = process_identity("cli") if prune else None
            return await read_schedules(
                installed.catalog, link, installed.settings.prefix, prune_as=prune_as
            )
        finally:
            await link.close()

    with open_store(installed.settings) as url:
        return asyncio.run(look(url))


async def read_schedules(
    catalog: Catalog, link: Link, prefix: str, *, prune_as: str | None = None
) -> list[ListedSchedule]:
    """Read the schedules of a catalog's queues, or remove those that are declared no longer.

    Args:
        catalog: The queues.
        link: The store.
        prefix: The first part of the keys.
        prune_as: In whose name schedules are removed that their queues declare no longer; these
            are returned then. None: remove none, return all.

    Raises:
        StoreUnavailable: The store is away, or its user may read none of the queues.
        DamagedKey: A schedule cannot be removed, because a key that its removal writes is of the
            wrong type.
    """
    found: list[ListedSchedule] = []
    audit = Audit(link, prefix)
    refusals: list[StoreUnavailable] = []
    for entry in catalog:
        name, declared = entry.queue.name, entry.queue.schedule is not None
        schedules = Schedules(QueueStore(link, prefix, name))
        try:
            stored, damaged = await _read_stored(schedules, link, prefix, name)
        except StoreUnavailable as error:
            if not is_missing_right(error):
                raise
            refusals.append(error)
            stored = ()
            damaged = (f"{queue_base(prefix, name)}* may not be read by the store's user",)
        if declared and not damaged and all(each.id != name for each in stored):
            removed = bool(await link.call("HEXISTS", schedules.removed_key, name))
            found.append(ListedSchedule(name, "declared", None, removed))
        origin: Literal["declared", "undeclared"] = "declared" if declared else "undeclared"
        for each in stored:
            found.append(ListedSchedule(name, origin if each.id == name else "runtime", each))
            if prune_as is not None and found[-1].origin == "undeclared":
                await _ensure_changeable(link, prefix, name)
                await schedules.remove(each.id, mark=PRUNED)
                await audit.write(prune_as, "prune", queue=name, before={"schedule": each.id})
        if prune_as is None:
            found += [ListedSchedule(name, origin, None, damaged=each) for each in damaged]
    if refusals and len(refusals) == len(catalog.entries):
        raise refusals[0]
    return [each for each in found if prune_as is None or each.origin == "undeclared"]


async def _read_stored(
    schedules: Schedules, link: Link, prefix: str, queue: str
) -> tuple[Sequence[StoredSchedule], Sequence[str]]:
    """Read a queue's schedules.

    Returns:
        The schedules, and what is wrong with the keys of those that cannot be read.
    """
    try:
        return await schedules.list(), ()
    except ResponseError:
        pass
    key = queue_key(prefix, queue, REPEAT)
    damaged = await find_damaged_keys(link, [(key, "zset")])
    if damaged:
        return (), damaged
    stored: list[StoredSchedule] = []
    for raw in await link.call("ZRANGE", key, 0, -1):
        schedule_id = raw.decode(errors="replace")
        try:
            async with report_damage(link, prefix, queue):
                found = await schedules.get(schedule_id)
        except DamagedKey as error:
            damaged += error.damaged
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            wrong = await find_damaged_keys(
                link, [(schedule_key(queue_base(prefix, queue), schedule_id), "hash")]
            )
            if not wrong:
                raise
            damaged += wrong
        else:
            stored += [found] if found else []
    return stored, [*dict.fromkeys(damaged)]


async def _ensure_changeable(link: Link, prefix: str, queue: str) -> None:
    """Refuse to change a schedule if the change would end half-way.

    The script removes the coming run before it writes the event.

    Raises:
        DamagedKey: A key that is written is of the wrong type.
        StoreUnavailable: The store's user lacks a right; or the store is away.
    """
    await ensure_rights(link, prefix, queue)
    written = REPEAT, DELAYED, EVENTS
    keys = [
        *((queue_key(prefix, queue, name), QUEUE_KEYS[name]) for name in written),
        (audit_key(prefix), "stream"),
    ]
    if damaged := await find_damaged_keys(link, keys):
        raise DamagedKey(*damaged)
