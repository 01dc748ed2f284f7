"""Finding jobs by what is in them, among very many: in short scripts, and never more than a bounded number of those."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corral.errors import ConfigurationError
from corral.inspector.calls import Calls
from corral.inspector.stored import STATES, State, StoredJob, decode_stored, number, spellings, state_of
from corral.queue import Queue

__all__ = ["MAX_PAGE", "MAX_TEXT", "Found", "search"]

MAX_PAGE = 100
"""Jobs per page: payloads may have a megabyte each."""
MAX_TEXT = 200
"""Characters that are looked for. A text that is long and almost there costs its length at every place."""
BATCH = 1_000
"""Jobs per script: a longer script would keep the workers waiting."""
BATCH_BYTES = 512 * 1024
"""Payloads and reasons per script, but for a single larger one."""
LOOKS = 12_000
"""Jobs per search. With BYTES: what the store looks through within 50 ms."""
BYTES = 12 * 1024 * 1024
ORDER: Final = ("failed", "active", "wait", "paused", "prioritized", "delayed", "waiting-children", "completed")
"""The containers, what is asked for most first; BullMQ 5's `paused` holds waiting jobs."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        jobs: The jobs, one that has the text for its id first.
        looked_at: How many jobs were looked at for it.
        total: How many jobs there are in the states that were asked for.
        cut: Whether some have not been looked at.
        next: Where another search goes on with those; None if there are none.
    """

    jobs: Sequence[StoredJob]
    looked_at: int
    total: int
    cut: bool
    next: str | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Behind which job a search goes on: its container, its score there (in a list its index), its id."""

    container: str
    place: str = ""
    job_id: bytes = b""

    def __str__(self) -> str:
        return f"{self.container}:{self.place}:{self.job_id.decode(errors='replace')}"


async def search(  # noqa: PLR0917  # as `JobInspector.search` names them
    calls: Calls,
    queue: Queue[Any] | str,
    text: str,
    field: tuple[str, str] | None,
    states: Collection[State],
    match: Callable[[StoredJob], bool] | None,
    after: str | None,
    limit: int,
) -> Found:
    """Find jobs; see `JobInspector.search`."""
    _check(text, field, limit)
    name = calls.name(queue)
    containers = [each for each in ORDER if state_of(each) in states]
    place = _place(after, containers) if after else _Place(containers[0]) if containers else None
    wanted = _Wanted(text, field, match)
    counts = await calls.counts(queue)
    jobs = [] if after or not text else await _of_id(calls, queue, text, states, wanted)
    looked, left_bytes = 0, BYTES
    while place and len(jobs) < limit and looked < LOOKS and left_bytes > 0:
        state = state_of(place.container)
        hits = limit - len(jobs)
        asked = (min(BATCH, LOOKS - looked), BATCH_BYTES, hits, *wanted.arguments)
        seen, read, ended, at, job_id, found = await calls.run(
            "search", queue, place.container, place.place, place.job_id, *asked
        )
        looked += seen
        left_bytes -= read
        for each, flat, due in found:
            job = decode_stored(name, each.decode(errors="replace"), state, flat, due_score=float(due) if due else None)
            if job.id != text and wanted(job):  # of that id it is here already
                jobs.append(job)
        if ended:
            later = containers[containers.index(place.container) + 1 :]
            place = _Place(later[0]) if later else None
        else:
            place = _Place(place.container, at.decode(), job_id)
    total = sum(counts[state] for state in STATES if state in states)
    return Found(jobs, max(looked, len(jobs)), total, place is not None, str(place) if place else None)


class _Wanted:
    """What is looked for.

    Attributes:
        arguments: What search.lua is told; what it gives has all of that somewhere.
    """

    def __init__(self, text: str, field: tuple[str, str] | None, match: Callable[[StoredJob], bool] | None) -> None:
        texts = spellings(text) if text else ()
        names: Sequence[str] = ()
        values: Sequence[str] = ()
        if field:
            names = _quoted(field[0].rsplit(".", 1)[-1])
            values = (*_quoted(field[1]), *([field[1]] if _is_scalar(field[1]) else []))
        lists = (texts, names, values)
        self.arguments = [each for strings in lists for each in (len(strings), *map(_encoded, strings))]
        self._field = field
        self._match = match

    def __call__(self, job: StoredJob) -> bool:
        """Whether a job that search.lua gave is meant."""
        return (not self._field or _has(job.data, *self._field)) and (not self._match or self._match(job))


def _has(data: Any, path: str, value: str) -> bool:
    """Whether the member at a dotted path is that; a member's name may have dots itself."""
    if not isinstance(data, Mapping):
        return False
    if path in data:
        found = data[path]
        if found == value or (not isinstance(found, str | Mapping | list) and json.dumps(found) == value):
            return True
    name, *rest = path.split(".")
    for length in range(1, len(rest) + 1):
        if _has(data.get(name), ".".join(rest[length - 1 :]), value):
            return True
        name = f"{name}.{rest[length - 1]}"
    return False


async def _of_id(
    calls: Calls, queue: Queue[Any] | str, job_id: str, states: Collection[State], wanted: _Wanted
) -> list[StoredJob]:
    """The job of that id, if it is meant."""
    reply = await calls.run("show", queue, _encoded(job_id))
    if not reply:
        return []
    _, container, flat, log_lines, lock_ms, due = reply
    state = state_of(container.decode())
    job = decode_stored(calls.name(queue), job_id, state, flat, log_lines, lock_ms, float(due) if due else None)
    return [job] if (state in states or len(states) == len(STATES)) and wanted(job) else []


def _check(text: str, field: tuple[str, str] | None, limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise ConfigurationError(f"a search finds 1 to {MAX_PAGE} jobs at once")
    if max(map(len, (text, *(field or ())))) > MAX_TEXT:
        raise ConfigurationError(
            f"a search is for at most {MAX_TEXT} characters", hint="a part of the text is enough to find the job"
        )


def _place(after: str, containers: Sequence[str]) -> _Place:
    container, _, rest = after.partition(":")
    place, _, job_id = rest.partition(":")
    whole = place.isdecimal() and len(place) < 16
    known = whole if container in {"wait", "paused", "active"} else number(place) is not None
    if container not in containers or not (known or not place):
        raise ConfigurationError("the place where this search is to go on is none", hint="start the search again")
    return _Place(container, place, _encoded(job_id))


def _quoted(text: str) -> Sequence[str]:
    return [f'"{each}"' for each in spellings(text)] if text else ['""']


def _is_scalar(text: str) -> bool:
    try:
        return not isinstance(json.loads(text), str | dict | list)
    except (ValueError, RecursionError):
        return False


def _encoded(text: str) -> bytes:
    """As bytes: half a character, which JSON can hold, is looked for as such."""
    return text.encode(errors="surrogatepass")
