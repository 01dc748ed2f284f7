"""Search for jobs by their contents, with a bounded number of short scripts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corral.errors import ConfigurationError
from corral.inspector.queue_access import QueueAccess
from corral.inspector.refusals import DamagedKey
from corral.inspector.sizes import read_sizes
from corral.inspector.stored_job import StoredJob, decode_listed, decode_shown, spellings
from corral.job_state import JobState
from corral.queue import Queue

__all__ = ["MAX_PAGE", "MAX_TEXT", "SearchResult", "search"]

MAX_PAGE = 100
"""Jobs per page: payloads may have a megabyte each."""
MAX_TEXT = 200
"""The longest text to search for, in characters: a part of a text is enough to find its job."""
BATCH = 500
"""Jobs per script: a longer script would block the workers."""
JOB_BYTES = 1_200
"""The fixed cost of reading a job, expressed in bytes of payload."""
BATCH_BYTES = 512 * 1024
"""The most bytes that one script reads; only a single larger payload exceeds it."""
BYTES = 5_000 * 1024
"""The most bytes that one search reads, `JOB_BYTES` for each job included.

Together with `MAX_CANDIDATES` this takes the store at most 40 ms, which leaves a page 10 ms.
"""
MAX_CANDIDATES = 300
"""The most jobs that one search fetches from the store, even if none of them matches in the end.

Fetched jobs do not count as more bytes: otherwise the progress of a search would reveal which jobs
hold a text in a masked field.
"""
SCORE: Final = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?")
"""A score as the store writes it; Python's `float` accepts more spellings."""
STATE_OF_CONTAINER: Final[Mapping[str, JobState]] = {
    "failed": JobState.FAILED,
    "active": JobState.ACTIVE,
    "wait": JobState.WAITING,
    "paused": JobState.WAITING,
    "prioritized": JobState.PRIORITIZED,
    "delayed": JobState.DELAYED,
    "waiting-children": JobState.WAITING_CHILDREN,
    "completed": JobState.COMPLETED,
}
"""The containers in the order of a search, with the states of their jobs.

`paused` belongs to BullMQ 5 (wire § 6.14).
"""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search.

    Attributes:
        jobs: The jobs that match; a job whose id is the text comes first.
        looked_at: How many jobs were searched.
        total: How many jobs there are in the states that were searched.
        cut: Whether some jobs have not been searched.
        next: Pass it as `after` to search the remaining jobs; None if there are none.
        share: The part of the cost limit that this search used, from 0 to 1.
    """

    jobs: Sequence[StoredJob]
    looked_at: int
    total: int
    cut: bool
    next: str | None
    share: float


@dataclass(frozen=True, slots=True)
class _Position:
    """The job after which a search continues.

    Attributes:
        container: Its container; the search begins with that container if the rest is empty.
        place: Its score in the container; in a list, its index.
        job_id: Its id.
    """

    container: str
    place: str = ""
    job_id: bytes = b""

    def __str__(self) -> str:
        return f"{self.container}:{self.place}:{self.job_id.decode(errors='replace')}"


async def search(  # noqa: PLR0917  # as `JobInspector.search` names them
    access: QueueAccess,
    queue: Queue[Any] | str,
    text: str,
    field: tuple[str, str] | None,
    states: Collection[JobState],
    match: Callable[[StoredJob], bool] | None,
    after: str | None,
    limit: int,
    share: float,
) -> SearchResult:
    """Search for jobs; see `JobInspector.search`."""
    _check_bounds(text, field, limit)
    name = access.name(queue)
    containers = [each for each, state in STATE_OF_CONTAINER.items() if state in states]
    position = _parse_position(after, containers) if after else None
    query = _Query(text, field, match)
    counts = (await read_sizes(access, queue)).counts  # containers whose key is damaged are skipped
    first = containers.index(position.container) if position else 0
    ahead = [each for each in containers[first:] if counts[STATE_OF_CONTAINER[each]]]
    if not position or position.container not in ahead:
        position = _Position(ahead[0]) if ahead else None
    jobs = [] if after or not text else await _find_by_id(access, queue, text, states, query)
    looked, left_bytes, left_jobs = 0, math.ceil(BYTES * share), math.ceil(MAX_CANDIDATES * share)
    while position and len(jobs) < limit and left_bytes > 0 and left_jobs > 0:
        state = STATE_OF_CONTAINER[position.container]
        hits = limit - len(jobs)
        asked = (BATCH, JOB_BYTES, min(BATCH_BYTES, left_bytes), hits, *query.arguments)
        seen, read, ended, at, job_id, found = await access.run(
            "search", queue, position.container, position.place, position.job_id, *asked
        )
        looked += seen
        left_bytes -= read
        left_jobs -= len(found)
        for row in found:
            job = decode_listed(name, state, row)
            if job.id != text and query.matches(job):  # the job with that id was found above
                jobs.append(job)
        if ended:
            ahead = ahead[ahead.index(position.container) + 1 :]
            position = _Position(ahead[0]) if ahead else None
        else:
            position = _Position(position.container, at.decode(), job_id)
    total = sum(counts[state] or 0 for state in JobState if state in states)
    used = share - left_bytes / BYTES
    return SearchResult(
        jobs=jobs,
        looked_at=max(looked, len(jobs)),
        total=total,
        cut=position is not None,
        next=str(position) if position else None,
        share=used,
    )


class _Query:
    """The conditions of a search.

    Attributes:
        arguments: The conditions for search.lua, which returns candidates: jobs that contain all of
            these texts somewhere. `matches` decides about each candidate.
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

    def matches(self, job: StoredJob) -> bool:
        """Whether a candidate that search.lua returned fulfils the conditions."""
        return (not self._field or _has_value(job.data, *self._field)) and (
            not self._match or self._match(job)
        )


def _has_value(data: Any, path: str, value: str) -> bool:
    """Whether the member with that name, or at that dotted path, has that value."""
    for names in ([path], path.split(".")):
        found = data
        for name in names:
            found = found.get(name, {}) if isinstance(found, Mapping) else {}
        if found == value or (
            not isinstance(found, str | Mapping | list) and json.dumps(found) == value
        ):
            return True
    return False


async def _find_by_id(
    access: QueueAccess,
    queue: Queue[Any] | str,
    job_id: str,
    states: Collection[JobState],
    query: _Query,
) -> list[StoredJob]:
    """Read the job with that id, if there is one and it matches."""
    try:
        reply = await access.run("job", queue, _encoded(job_id))
    except DamagedKey:
        return []
    if not reply:
        return []
    job = decode_shown(access.name(queue), job_id, reply)
    is_in_states = job.state in states or len(states) == len(JobState)
    return [job] if is_in_states and query.matches(job) else []


def _check_bounds(text: str, field: tuple[str, str] | None, limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise ConfigurationError(f"a search finds 1 to {MAX_PAGE} jobs at once")
    if max(map(len, (text, *(field or ())))) > MAX_TEXT:
        raise ConfigurationError(
            f"a search is for at most {MAX_TEXT} characters",
            hint="a part of the text is enough to find the job",
        )


def _parse_position(after: str, containers: Sequence[str]) -> _Position:
    container, _, rest = after.partition(":")
    place, _, job_id = rest.partition(":")
    is_index = place.isascii() and place.isdecimal() and len(place) < 16
    is_valid = is_index if container in {"wait", "paused", "active"} else SCORE.fullmatch(place)
    if container not in containers or not (is_valid or not place):
        raise ConfigurationError(
            "this is not a place where a search can continue", hint="start the search again"
        )
    return _Position(container, place, _encoded(job_id))


def _quoted(text: str) -> Sequence[str]:
    return [f'"{each}"' for each in spellings(text)] if text else ['""']


def _is_scalar(text: str) -> bool:
    try:
        return not isinstance(json.loads(text), str | dict | list)
    except (ValueError, RecursionError):
        return False


def _encoded(text: str) -> bytes:
    """The text in UTF-8; a lone surrogate, which JSON can hold, is encoded as it is."""
    return text.encode(errors="surrogatepass")
