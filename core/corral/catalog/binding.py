"""`bind_processors`: gives the catalog's queues the processors that plugins return."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from corral.catalog.check import check_processor
from corral.catalog.entry import CatalogEntry
from corral.plugins import Code, Plugins, Provider, Report
from corral.processor import Processor
from corral.queue import Queue

__all__ = ["bind_processors"]


@dataclass(frozen=True, slots=True)
class _Offer:
    """A processor that a plugin returned from `corral_processors`.

    Attributes:
        provider: The distribution that returned it.
        processor: The processor.
        entry: The catalog's entry of its queue's name, if there is one.
        is_bound: Whether that entry has a processor already.
    """

    provider: Provider
    processor: Processor
    entry: CatalogEntry | None
    is_bound: bool

    @property
    def subject(self) -> str:
        """The processor, as the subject of a sentence."""
        return f"the processor that {self.provider} has for queue {self.processor.queue.name!r}"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A reason to refuse a processor.

    Attributes:
        code: The problem's code.
        applies: Whether it applies. It is asked only if the reasons before it do not apply.
        message: The problem, after the offer's `subject`; `{entry.provider}` is filled in.
        hint: What the plugin's author can do.
        claims_queue: Whether the plugin clearly means the catalog's queue. Then the queue's missing
            processor is not reported as a second problem.
    """

    code: Code
    applies: Callable[[_Offer], bool]
    message: str
    hint: str | None = None
    claims_queue: bool = False


def _is_foreign(offer: _Offer) -> bool:
    entry = offer.entry
    return entry is not None and entry.provider.distribution != offer.provider.distribution


REFUSALS: Final = (
    _Refusal(
        "undeclared-processor",
        lambda offer: offer.entry is None,
        "is for a queue that nobody declares",
    ),
    _Refusal(
        "undeclared-processor",
        _is_foreign,
        "is for a queue of {entry.provider}: who declares a queue processes it",
    ),
    _Refusal(
        "undeclared-processor",
        lambda offer: offer.entry is not None and offer.entry.queue is not offer.processor.queue,
        "is for another object of that name than the declared one",
        hint="import the queue from where it is declared",
        claims_queue=True,
    ),
    _Refusal(
        "duplicate-processor",
        lambda offer: offer.is_bound,
        "is not the only one",
        hint="return one per queue from corral_processors",
    ),
)
"""The reasons to refuse a processor; the first that applies is reported."""


def bind_processors(
    plugins: Plugins,
    entries: Mapping[str, CatalogEntry],
    refused: Collection[Queue[Any]],
    served: Collection[str] | None,
    report: Report,
) -> dict[str, CatalogEntry]:
    """Ask plugins for their processors, and add those to the catalog's entries.

    Args:
        plugins: The loaded plugins. Only those with a served queue are asked.
        entries: The entries by name.
        refused: Queues that were refused; their processors are ignored.
        served: The names of the queues that need a processor; None for all.
        report: Gets the problems.

    Returns:
        All entries, those of served queues with their processor.
    """
    names = entries if served is None else served
    wanted = [entries[name] for name in names if name in entries]
    only = None if served is None else {entry.provider.distribution for entry in wanted}
    processors: dict[str, Processor] = {}
    claimed: set[str] = set()
    for provider, processor in plugins.ask("corral_processors", Processor, report, only=only):
        queue = processor.queue
        if queue in refused:
            continue
        offer = _Offer(provider, processor, entries.get(queue.name), queue.name in processors)
        refusal = next((each for each in REFUSALS if each.applies(offer)), None)
        if refusal is None:
            processors[queue.name] = processor
            check_processor(processor, offer.subject, provider, report)
            continue
        if refusal.claims_queue:
            claimed.add(queue.name)
        involved = [provider, offer.entry.provider] if offer.entry else [provider]
        message = f"{offer.subject} {refusal.message.format(entry=offer.entry)}"
        report.add(refusal.code, message, involved, hint=refusal.hint)
    _report_missing(wanted, processors.keys() | claimed, report)
    return {
        **entries,
        **{
            entry.queue.name: replace(entry, processor=processors.get(entry.queue.name))
            for entry in wanted
        },
    }


def _report_missing(
    wanted: Collection[CatalogEntry], bound: Collection[str], report: Report
) -> None:
    """Report the queues that need a processor and have none, except for those of faulty plugins."""
    faulty = {each.provider.distribution for each in report.faulty}
    for entry in wanted:
        name = entry.queue.name
        if name not in bound and entry.provider.distribution not in faulty:
            report.add(
                "missing-processor",
                f"queue {name!r} of {entry.provider} has no processor",
                [entry.provider],
                hint="return queue.processed_by(…) from corral_processors; or serve the others:"
                " corral worker QUEUE …",
            )
