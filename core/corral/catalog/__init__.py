"""`Catalog`: the closed set of queues.

Built once from what is installed, then frozen; or refused as a whole.

It knows plugins and declarations, and nothing of the store: what other processes run is compared in
`record`, from values that somebody else has read.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from corral.catalog.check import check_names, check_processor, check_queue
from corral.catalog.lock import Lock, Locked, check_complete, check_lock
from corral.errors import JobRefused, UnknownQueue
from corral.plugins import Claim, Plugins, Provider, Report
from corral.plugins.entry_points import BUILT_IN, PLUGINS, QUEUES, canonical
from corral.processor import Processor
from corral.queue import Queue

__all__ = ["Catalog", "Entry", "Role"]

Role = Literal["producer", "worker", "check"]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One queue of the catalog.

    Attributes:
        queue: The queue.
        provider: The distribution that declares it.
        fingerprint: A digest of its payload's JSON schema.
        processor: What processes it; None in a process that does not serve it.
    """

    queue: Queue[Any]
    provider: Provider
    fingerprint: str
    processor: Processor | None = None

    @property
    def locked(self) -> Locked:
        """What a lock file says of it."""
        return Locked(self.provider.distribution, self.provider.version, self.fingerprint)


@dataclass(frozen=True, slots=True, eq=False)
class Catalog:
    """The queues of a process.

    Attributes:
        entries: All of them, by name, in the order of their names.
        served: The names of those that this process works off; none in a producer.
        is_locked: Whether a lock file closes the catalog; else every installed queue is in it.
        disabled: Names that are not in it because their plugins are disabled.
        plugins: The distributions that have hooks and declare no queue.
        warnings: What an operator should know of the lock file, a sentence each.
    """

    entries: Mapping[str, Entry]
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
        """Check everything, and close the set.

        Args:
            plugins: What was loaded.
            role: A `producer` needs declarations only. A `worker` needs the processors of the
                queues it serves, and asks nobody else for theirs. `check` needs all processors, and
                everything that is locked.
            serves: In a worker, the names of the queues it serves; None for all.
            lock: What the lock file says; without one the catalog is open. Its names were compared
                when the plugins were loaded.
            patches: Whether it allows patch releases of what is locked.

        Raises:
            CatalogError: With everything that is wrong. Its `__cause__` is what plugins raised, if
            any did.
            UnknownQueue: Nothing is wrong, but the worker is to serve a queue that nobody declares.
        """
        report = plugins.report.copy()
        declared = [
            claim
            for claim in plugins.claims
            if claim.group == QUEUES and claim not in plugins.disabled
        ]
        check_names(declared, report)
        entries, refused = _registered(plugins, declared, report)
        served: tuple[str, ...] = ()
        if role != "producer":
            served = tuple(sorted(entries if serves is None else set(serves)))
            entries = _bound(plugins, entries, refused, None if role == "check" else served, report)
        hooking = _hooking(plugins, declared)
        warnings = (
            [] if lock is None else _compared(lock, entries, hooking, report, patches=patches)
        )
        if lock is not None and role == "check":
            check_complete(lock, plugins.claims, report)
        report.raise_problems()
        catalog = cls(
            entries=MappingProxyType(dict(sorted(entries.items()))),
            served=served,
            is_locked=lock is not None,
            disabled=frozenset(claim.name for claim in plugins.disabled if claim.group == QUEUES),
            plugins=hooking,
            warnings=tuple(warnings),
        )
        for name in served:
            catalog.get(name)
        return catalog

    def get(self, queue: Queue[Any] | str) -> Entry:
        """The entry of a queue.

        Args:
            queue: The queue, or its name.

        Raises:
            UnknownQueue: The catalog has no queue of this name.
            JobRefused: It has one, but `queue` is another object: another declaration of the same
            name.
        """
        name = queue if isinstance(queue, str) else queue.name
        entry = self.entries.get(name)
        if entry is None:
            raise UnknownQueue(name, hint=self._instead_of(name))
        if not isinstance(queue, str) and queue is not entry.queue:
            raise JobRefused(
                f"this queue {name!r} is not the one that {entry.provider} declares, but another of its name",
                hint="import the queue from that distribution, or enqueue by name",
            )
        return entry

    def lock_entries(self) -> Lock:
        """What a lock file of this catalog says."""
        return Lock(
            {name: entry.locked for name, entry in self.entries.items()},
            {canonical(provider.distribution): provider.version for provider in self.plugins},
        )

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def __len__(self) -> int:
        return len(self.entries)

    def _instead_of(self, name: str) -> str:
        if name in self.disabled:
            return "CORRAL_DISABLED_PLUGINS disables it"
        close = difflib.get_close_matches(name.lower().replace("_", "-"), self.entries, n=1)
        if close:
            return f"did you mean {close[0]!r}?"
        if not self.entries:
            return "no installed distribution declares a queue"
        return f"the queues are: {', '.join(self.entries)}"


def _registered(
    plugins: Plugins, declared: Iterable[Claim], report: Report
) -> tuple[dict[str, Entry], set[Queue[Any]]]:
    """What plugins register, held against what their distributions declare.

    Returns:
        The entries by name; and what was refused, so that nobody's processor of it is refused as
        well.
    """
    declarations = {(claim.provider.distribution, claim.name) for claim in declared}
    disabled = {(claim.provider.distribution, claim.name) for claim in plugins.disabled}
    entries: dict[str, Entry] = {}
    refused: set[Queue[Any]] = set()
    for provider, queue in plugins.ask("corral_queues", Queue, report):
        name, before = queue.name, entries.get(queue.name)
        if (provider.distribution, name) in disabled:
            refused.add(queue)
        elif (provider.distribution, name) not in declarations:
            refused.add(queue)
            hint = f'in its pyproject.toml: [project.entry-points."corral.queues"] {name} = …; then install it again'
            message = (
                f"queue {name!r} is registered by {provider}, which has no entry point of that name"
            )
            report.add("undeclared-queue", message, [provider], hint=hint)
        elif before is None:
            entries[name] = Entry(queue, provider, check_queue(queue, provider, report))
        elif before.queue is not queue:
            refused.add(queue)
            if before.provider == provider:  # else the names of the entry points have told
                message = f"queue {name!r} is registered twice by {provider.label}, as two objects"
                report.add(
                    "duplicate-queue",
                    message,
                    [provider],
                    hint="declare it once and import it from there",
                )
    refused -= {entry.queue for entry in entries.values()}
    for claim in declared:
        if claim.name not in entries and claim not in report.faulty:
            hint = "return the queue of that name from corral_queues, and mark that with @hookimpl"
            report.blame(
                "nothing-registered",
                [claim],
                "declares a queue that it does not register",
                hint=hint,
            )
    for plugin in plugins.loaded:
        if not plugin.hooks and all(claim.group == PLUGINS for claim in plugin.claims):
            report.blame(
                "nothing-registered",
                plugin.claims,
                "implements no hook",
                hint="mark its hooks with @hookimpl",
            )
    return entries, refused


def _bound(
    plugins: Plugins,
    entries: Mapping[str, Entry],
    refused: set[Queue[Any]],
    served: tuple[str, ...] | None,
    report: Report,
) -> dict[str, Entry]:
    """The entries with the processors of those that are served, or of all where `served` is None."""
    wanted = [entries[name] for name in (entries if served is None else served) if name in entries]
    asked = None if served is None else {entry.provider.distribution for entry in wanted}
    processors: dict[str, Processor] = {}
    misplaced: set[str] = set()  # has a processor, if a refused one: no second problem
    for provider, processor in plugins.ask("corral_processors", Processor, report, only=asked):
        queue = processor.queue
        entry = entries.get(queue.name)
        subject = f"the processor that {provider} has for queue {queue.name!r}"
        if queue in refused:
            continue
        if entry is None:
            report.add(
                "undeclared-processor", f"{subject} is for a queue that nobody declares", [provider]
            )
        elif entry.provider.distribution != provider.distribution:
            message = (
                f"{subject} is for a queue of {entry.provider}: who declares a queue processes it"
            )
            report.add("undeclared-processor", message, [provider, entry.provider])
        elif entry.queue is not queue:
            misplaced.add(queue.name)
            hint = "import the queue from where it is declared"
            message = f"{subject} is for another object of that name than the declared one"
            report.add("undeclared-processor", message, [provider], hint=hint)
        elif queue.name in processors:
            message = f"{subject} is not the only one"
            report.add(
                "duplicate-processor",
                message,
                [provider],
                hint="return one per queue from corral_processors",
            )
        else:
            processors[queue.name] = processor
            check_processor(processor, subject, provider, report)
    faulty = {claim.provider.distribution for claim in report.faulty}
    for entry in wanted:
        name = entry.queue.name
        if (
            name not in processors
            and name not in misplaced
            and entry.provider.distribution not in faulty
        ):
            hint = "return queue.processed_by(…) from corral_processors; or serve the others: corral worker QUEUE …"
            report.add(
                "missing-processor",
                f"queue {name!r} of {entry.provider} has no processor",
                [entry.provider],
                hint=hint,
            )
    bound = {
        entry.queue.name: replace(entry, processor=processors.get(entry.queue.name))
        for entry in wanted
    }
    return {**entries, **bound}


def _hooking(plugins: Plugins, declared: Iterable[Claim]) -> tuple[Provider, ...]:
    """The distributions whose hooks are loaded and that declare no queue."""
    declaring = {claim.provider for claim in declared}
    loaded = (
        claim for plugin in plugins.loaded for claim in plugin.claims if claim.group == PLUGINS
    )
    found = (claim.provider for claim in loaded if claim.provider.origin != BUILT_IN)
    return tuple(dict.fromkeys(provider for provider in found if provider not in declaring))


def _compared(
    lock: Lock,
    entries: Mapping[str, Entry],
    hooking: tuple[Provider, ...],
    report: Report,
    *,
    patches: bool,
) -> list[str]:
    """Compare with the lock file; returns warnings."""
    refused = {
        (claim.provider, claim.name) for claim in report.faulty
    }  # told before they would have been imported
    queues = {
        name: (entry.provider, entry.fingerprint)
        for name, entry in entries.items()
        if (entry.provider, name) not in refused
    }
    warnings = check_lock(lock, queues, hooking, report, patches=patches)
    if lock.plugins is None:
        free = f" ({', '.join(map(str, hooking))})" if hooking else ""
        warnings.append(
            f"the lock file is of the first form and allows every plugin that declares no queue{free}:"
            " `corral lock` writes it anew"
        )
    return warnings
