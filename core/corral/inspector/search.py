"""Finding jobs by what is in them, among very many: in short scripts, and never more than a bounded
number of those.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corral.errors import ConfigurationError
from corral.inspector.calls import Calls
from corral.inspector.refusals import DamagedKey
from corral.inspector.sizes import sizes
from corral.inspector.stored import STATES, State, StoredJob, decode_listed, decode_shown, spellings
from corral.queue import Queue

__all__ = ["MAX_PAGE", "MAX_TEXT", "Found", "search"]

MAX_PAGE = 100
"""Jobs per page: payloads may have a megabyte each."""
MAX_TEXT = 200
"""Characters that are looked for: a part of what somebody saw is enough."""
BATCH = 500
"""Jobs per script: a longer script would keep the workers waiting."""
JOB_BYTES = 1_200
"""What looking at a job costs besides its payload: about as much as so many bytes of that."""
BATCH_BYTES = 512 * 1024
"""How much a script reads at most, but for a single larger payload."""
BYTES = 5_000 * 1024
"""As how much a search may count.

With GIVEN: what the store does within 40 ms, so that a page has 10 for the rest.
"""
GIVEN = 300
"""Jobs that one search takes out of the store, though none of them may be meant. They do not count
as read: how far it came would tell of each job that holds a text where it is masked.
"""
SCORE: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?")
"""A score as the store spells it; Python's `float` takes more."""
CONTAINED: Final[Mapping[str, State]] = {
    "failed": "failed",
    "active": "active",
    "wait": "waiting",
    "paused": "waiting",
    "prioritized": "prioritized",
    "delayed": "delayed",
    "waiting-children": "waiting-children",
    "completed": "completed",
}
"""The containers, what is asked for most first, and the states of their jobs; `paused` is BullMQ
5's (wire § 6.14).
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        jobs: The jobs, one that has the text for its id first.
        looked_at: How many jobs were looked at for it.
        total: How many jobs there are in the states that were asked for.
        cut: Whether some have not been looked at.
        next: Where another search goes on with those; None if there are none.
        share: How much it has read, of the most that a search may read: from 0 to 1.
    """

    jobs: Sequence[StoredJob]
    looked_at: int
    total: int
    cut: bool
    next: str | None
    share: float


@dataclass(frozen=True, slots=True)
class _Place:
    """Behind which job a search goes on: its container, its score there (in a list its index), its
    id.
    """

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
    share: float,
) -> Found:
    """Find jobs; see `JobInspector.search`."""
    _check(text, field, limit)
    name = calls.name(queue)
    containers = [each for each, state in CONTAINED.items() if state in states]
    place = _place(after, containers) if after else None
    wanted = _Wanted(text, field, match)
    counts = (await sizes(calls, queue)).counts  # where a key is damaged, nothing can be found
    first = containers.index(place.container) if place else 0
    ahead = [each for each in containers[first:] if counts[CONTAINED[each]]]
    if not place or place.container not in ahead:
        place = _Place(ahead[0]) if ahead else None
    jobs = [] if after or not text else await _of_id(calls, queue, text, states, wanted)
    looked, left_bytes, left_jobs = 0, math.ceil(BYTES * share), math.ceil(GIVEN * share)
    while place and len(jobs) < limit and left_bytes > 0 and left_jobs > 0:
        state = CONTAINED[place.container]
        hits = limit - len(jobs)
        asked = (BATCH, JOB_BYTES, min(BATCH_BYTES, left_bytes), hits, *wanted.arguments)
        seen, read, ended, at, job_id, found = await calls.run(
            "search", queue, place.container, place.place, place.job_id, *asked
        )
        looked += seen
        left_bytes -= read
        left_jobs -= len(found)
        for row in found:
            job = decode_listed(name, state, row)
            if job.id != text and wanted(job):  # of that id it is here already
                jobs.append(job)
        if ended:
            ahead = ahead[ahead.index(place.container) + 1 :]
            place = _Place(ahead[0]) if ahead else None
        else:
            place = _Place(place.container, at.decode(), job_id)
    total = sum(counts[state] or 0 for state in STATES if state in states)
    used = share - left_bytes / BYTES
    return Found(
        jobs, max(looked, len(jobs)), total, place is not None, str(place) if place else None, used
    )


class _Wanted:
    """What is looked for.

    Attributes:
        arguments: What search.lua is told; what it gives has all of that somewhere.
    """

    def __init__(
        self, text: str, field: tuple[str, str] | None, match: Callable[[StoredJob], bool] | None
    ) -> None:
        texts = spellings(text) if text else ()
        names: Sequence[str] = ()
        values: Sequence[str] = ()
        if field:
            names = (
                *_quoted(field[0].rpartition(".")[2]),
                *(_quoted(field[0]) if "." in field[0] else ()),
            )
            values = (*_quoted(field[1]), *([field[1]] if _is_scalar(field[1]) else []))
        lists = (texts, names, values)
        self.arguments = [
            each for strings in lists for each in (len(strings), *map(_encoded, strings))
        ]
        self._field = field
        self._match = match

    def __call__(self, job: StoredJob) -> bool:
        """Whether a job that search.lua gave is meant."""
        return (not self._field or _has(job.data, *self._field)) and (
            not self._match or self._match(job)
        )


def _has(data: Any, path: str, value: str) -> bool:
    """Whether the member of that name, or at that dotted path, has that value."""
    for names in ([path], path.split(".")):
        found = data
        for name in names:
            found = found.get(name, {}) if isinstance(found, Mapping) else {}
        if found == value or (
            not isinstance(found, str | Mapping | list) and json.dumps(found) == value
        ):
            return True
    return False


async def _of_id(
    calls: Calls, queue: Queue[Any] | str, job_id: str, states: Collection[State], wanted: _Wanted
) -> list[StoredJob]:
    """The job of that id, if it is meant."""
    try:
        reply = await calls.run("show", queue, _encoded(job_id))
    except DamagedKey:
        return []
    if not reply:
        return []
    job = decode_shown(calls.name(queue), job_id, reply)
    return [job] if (job.state in states or len(states) == len(STATES)) and wanted(job) else []


def _check(text: str, field: tuple[str, str] | None, limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise ConfigurationError(f"a search finds 1 to {MAX_PAGE} jobs at once")
    if max(map(len, (text, *(field or ())))) > MAX_TEXT:
        raise ConfigurationError(
            f"a search is for at most {MAX_TEXT} characters",
            hint="a part of the text is enough to find the job",
        )


def _place(after: str, containers: Sequence[str]) -> _Place:
    container, _, rest = after.partition(":")
    place, _, job_id = rest.partition(":")
    whole = place.isascii() and place.isdecimal() and len(place) < 16
    known = whole if container in {"wait", "paused", "active"} else SCORE.fullmatch(place)
    if container not in containers or not (known or not place):
        raise ConfigurationError(
            "the place where this search is to go on is none", hint="start the search again"
        )
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
