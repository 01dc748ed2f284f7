"""`Catalog`: the closed set of queues.

It is built once from what is installed and does not change afterwards; if anything is wrong, no
catalog is built. It knows plugins and their declarations, and not the store: `catalog.record`
compares it with the catalogs of other processes, from values that its caller has read.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import ConfigDict

from corral.catalog.binding import bind_processors
from corral.catalog.check import check_names, check_queue
from corral.catalog.entry import CatalogEntry
from corral.catalog.lock import Lock, check_complete, check_lock
from corral.errors import JobRefused, UnknownQueue
from corral.payload import Payload
from corral.plugins import PluginEntryPoint, Plugins, Provider, Report
from corral.plugins.entry_points import BUILT_IN, PLUGINS, QUEUES, canonical_name
from corral.queue import Queue

__all__ = ["Catalog", "CatalogEntry", "Role"]

Role = Literal["producer", "worker", "check"]

_NOBODY: Final = Provider("(not declared)", "", "")


class _AnyPayload(Payload):
    """The payload of a queue that nobody declares: any fields."""

    model_config = ConfigDict(extra="allow")


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """The queues of a process.

    Attributes:
        entries: All queues by name, in the order of their names.
        served: The names of the queues that this process serves; none in a producer.
        is_locked: Whether a lock file closes the catalog; else every installed queue is in it.
        disabled: The names of queues that are left out because their plugins are disabled.
        plugins: The distributions that implement hooks and declare no queue.
        warnings: What an operator should know of the lock file, a sentence each.
    """

    entries: Mapping[str, CatalogEntry]
    served: tuple[str, ...] = ()
    is_locked: bool = False
    disabled: frozenset[str] = frozenset()
    plugins: tuple[Provider, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def build(
        cls,
        plugins: Plugins,
        *,
        role: Role = "producer",
        serves: Iterable[str] | None = None,
        lock: Lock | None = None,
        patches: bool = False,
    ) -> Catalog:
        """Check everything that is installed, and build the catalog of it.

        Args:
            plugins: The loaded plugins.
            role: A `producer` needs declarations only. A `worker` needs the processors of the
                queues it serves, and asks no other plugin for processors. `check` needs all
                processors, and everything that is locked.
            serves: In a worker, the names of the queues it serves; None for all.
            lock: The content of the lock file; None without one, and the catalog is open. Its names
                were compared when the plugins were loaded.
            patches: Whether patch releases of locked distributions are allowed.

        Raises:
            CatalogError: With everything that is wrong. Its `__cause__` is what plugins raised, if
                any did.
            UnknownQueue: Nothing is wrong, but the worker is to serve a queue that no plugin
                declares.
        """
        report = plugins.report.copy()
        declared = [
            each
            for each in plugins.entry_points
            if each.group == QUEUES and each not in plugins.disabled
        ]
        check_names(declared, report)
        entries, refused = _collect_queues(plugins, declared, report)
        served: tuple[str, ...] = ()
        if role != "producer":
            served = tuple(sorted(entries if serves is None else set(serves)))
            only = None if role == "check" else served
            entries = bind_processors(plugins, entries, refused, only, report)
        queueless = _plugins_without_queues(plugins, declared)
        warnings = (
            []
            if lock is None
            else _compare_with_lock(lock, entries, queueless, report, patches=patches)
        )
        if lock is not None and role == "check":
            check_complete(lock, plugins.entry_points, report)
        report.raise_problems()
        catalog = cls(
            entries=MappingProxyType(dict(sorted(entries.items()))),
            served=served,
            is_locked=lock is not None,
            disabled=frozenset(each.name for each in plugins.disabled if each.group == QUEUES),
            plugins=queueless,
            warnings=tuple(warnings),
        )
        for name in served:
            catalog.get(name)
        return catalog

    def get(self, queue: Queue[Any] | str) -> CatalogEntry:
        """The entry of a queue.

        Args:
            queue: The queue, or its name.

        Raises:
            UnknownQueue: The catalog has no queue of this name.
            JobRefused: `queue` is another declaration of the same name than the catalog's.
        """
        name = queue if isinstance(queue, str) else queue.name
        entry = self.entries.get(name)
        if entry is None:
            raise UnknownQueue(name, hint=self._hint_for_unknown(name))
        if not isinstance(queue, str) and queue is not entry.queue:
            raise JobRefused(
                f"this queue {name!r} is not the one that {entry.provider} declares, but another"
                " of its name",
                hint="import the queue from that distribution, or enqueue by name",
            )
        return entry

    def including(self, names: Iterable[str]) -> Catalog:
        """This catalog, and queues that nobody declares, whose jobs may have any payload.

        For operators: a producer or a worker must not have it.
        """
        more = {
            name: CatalogEntry(Queue(name, _AnyPayload), _NOBODY, fingerprint="")
            for name in names
            if name not in self.entries
        }
        return replace(self, entries=MappingProxyType({**self.entries, **more}))

    def lock_entries(self) -> Lock:
        """The content of a lock file that allows exactly this catalog."""
        return Lock(
            {name: entry.locked for name, entry in self.entries.items()},
            {canonical_name(provider.distribution): provider.version for provider in self.plugins},
        )

    def __iter__(self) -> Iterator[CatalogEntry]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def _hint_for_unknown(self, name: str) -> str:
        if name in self.disabled:
            return "CORRAL_DISABLED_PLUGINS disables it"
        close = difflib.get_close_matches(name.lower().replace("_", "-"), self.entries, n=1)
        if close:
            return f"did you mean {close[0]!r}?"
        if not self.entries:
            return "no installed distribution declares a queue"
        return f"the queues are: {', '.join(self.entries)}"


def _collect_queues(
    plugins: Plugins, declared: Collection[PluginEntryPoint], report: Report
) -> tuple[dict[str, CatalogEntry], set[Queue[Any]]]:
    """Ask the plugins for their queues, and compare those with the declared entry points.

    Returns:
        The entries by name; and the refused queues, whose processors are not reported as a second
        problem.
    """
    declarations = {(each.provider.distribution, each.name) for each in declared}
    disabled = {(each.provider.distribution, each.name) for each in plugins.disabled}
    entries: dict[str, CatalogEntry] = {}
    refused: set[Queue[Any]] = set()
    for provider, queue in plugins.ask("corral_queues", Queue, report):
        name, before = queue.name, entries.get(queue.name)
        if (provider.distribution, name) in disabled:
            refused.add(queue)
        elif (provider.distribution, name) not in declarations:
            refused.add(queue)
            hint = (
                'in its pyproject.toml: [project.entry-points."corral.queues"]'
                f" {name} = …; then install it again"
            )
            message = (
                f"queue {name!r} is registered by {provider}, which has no entry point of that name"
            )
            report.add("undeclared-queue", message, [provider], hint=hint)
        elif before is None:
            entries[name] = CatalogEntry(queue, provider, check_queue(queue, provider, report))
        elif before.queue is not queue:
            refused.add(queue)
            # Two distributions with one name were reported when the entry points were compared.
            if before.provider == provider:
                message = f"queue {name!r} is registered twice by {provider.label}, as two objects"
                hint = "declare it once and import it from there"
                report.add("duplicate-queue", message, [provider], hint=hint)
    refused -= {entry.queue for entry in entries.values()}
    _report_unregistered(plugins, declared, entries, report)
    return entries, refused


def _report_unregistered(
    plugins: Plugins,
    declared: Iterable[PluginEntryPoint],
    entries: Mapping[str, CatalogEntry],
    report: Report,
) -> None:
    """Report entry points without their queue, and plugins without a hook."""
    for each in declared:
        if each.name not in entries and each not in report.faulty:
            report.add_for_plugin(
                "nothing-registered",
                [each],
                "declares a queue that it does not register",
                hint="return the queue of that name from corral_queues, and mark that with"
                " @hookimpl",
            )
    for plugin in plugins.loaded:
        if not plugin.hooks and all(each.group == PLUGINS for each in plugin.entry_points):
            report.add_for_plugin(
                "nothing-registered",
                plugin.entry_points,
                "implements no hook",
                hint="mark its hooks with @hookimpl",
            )


def _plugins_without_queues(
    plugins: Plugins, declared: Iterable[PluginEntryPoint]
) -> tuple[Provider, ...]:
    """The distributions that have a loaded plugin and declare no queue."""
    declaring = {each.provider for each in declared}
    loaded = (
        each for plugin in plugins.loaded for each in plugin.entry_points if each.group == PLUGINS
    )
    providers = (each.provider for each in loaded if each.provider.origin != BUILT_IN)
    return tuple(dict.fromkeys(each for each in providers if each not in declaring))


def _compare_with_lock(
    lock: Lock,
    entries: Mapping[str, CatalogEntry],
    queueless: tuple[Provider, ...],
    report: Report,
    *,
    patches: bool,
) -> list[str]:
    """Compare the catalog with the lock file.

    Returns:
        Warnings, a sentence each.
    """
    # Queues whose names are not locked were reported before their plugins would be imported.
    refused = {(each.provider, each.name) for each in report.faulty}
    queues = {
        name: (entry.provider, entry.fingerprint)
        for name, entry in entries.items()
        if (entry.provider, name) not in refused
    }
    warnings = check_lock(lock, queues, queueless, report, patches=patches)
    if lock.plugins is None:
        allowed = f" ({', '.join(map(str, queueless))})" if queueless else ""
        warnings.append(
            "the lock file is of the first form and allows every plugin that declares no"
            f" queue{allowed}: `corral lock` writes it anew"
        )
    return warnings
