"""Every damage there is a test for, as data: which key, how, when, and how the job ends that it is
near to.

The keys are those of the wire page's § 2.1 and § 2.2, each with every type that it must not have;
counters, the fields of hashes and JSON also with texts that are none. A case is laid out by
`layout.py` and run by `trial.py`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import cycle, product
from types import MappingProxyType

from damage.judge import KEY_WORDS

__all__ = [
    "CONCURRENCIES",
    "ITERATION",
    "LAID_OUT",
    "ROLES",
    "Case",
    "Damage",
    "Intruder",
    "all_cases",
    "all_runs",
    "chosen",
    "sampled",
]

CONCURRENCIES = (1, 10, 500)
TYPES = ("string", "list", "set", "zset", "hash", "stream")
ITERATION = "repeat:s:1700000000000"
"""The current iteration of the job scheduler `s`."""
ROLES = ("plain", "child", "owner", ITERATION, "urgent", "late")
"""The jobs beside the twenty innocents: a plain one, a child, the owner of a deduplication id whose
next job waits, an iteration of a scheduler, a prioritized job and a delayed one. What is damaged is
near to one of them.
"""
SAMPLE = 60
SEED = 20_260_101
STOPPERS = ("meta", "wait", "active")
"""No client can work without these, so the test repairs them; until then nothing may be lost."""

QUEUE_KEYS = {
    **dict.fromkeys(("id", "pc", "limiter", "stalled-check"), "string"),
    **dict.fromkeys(
        ("wait", "active", "paused", "metrics:completed:data", "metrics:failed:data"), "list"
    ),
    **dict.fromkeys(("prioritized", "delayed", "waiting-children", "completed", "failed"), "zset"),
    **dict.fromkeys(("marker", "repeat", "priority"), "zset"),
    **dict.fromkeys(("meta", "metrics:completed", "metrics:failed"), "hash"),
    "stalled": "set",
    "events": "stream",
    "delay": "",
}
"""wire § 2.1: each key of a queue and its type; `delay` has none."""
JOB_KEYS = {
    **dict.fromkeys(("", ":processed", ":failed"), "hash"),
    ":lock": "string",
    ":logs": "list",
    ":dependencies": "set",
    ":unsuccessful": "zset",
}
"""wire § 2.2, behind the job's own key."""
PARENT_QUEUE_KEYS = (
    *(
        "wait",
        "active",
        "prioritized",
        "pc",
        "delayed",
        "waiting-children",
        "marker",
        "events",
        "meta",
        "failed",
        "id",
    ),
)
"""What the end of a child may touch in its parent's queue."""
LAID_OUT = ("id", "wait", "active", "prioritized", "delayed", "meta", "repeat")
"""Keys that are there before anything is damaged."""
NUMBERS = ("many", "", "nan", "1e400", "9223372036854775807")
"""No numbers, or one that cannot be counted up."""
TEXTS = ("many", "", "1e400", "nan", "{oops", "[1]", b"\xff\xfe")
"""What a field may hold that is no number, no JSON, no object or no UTF-8."""
JOB_FIELDS = (
    *(
        "name",
        "data",
        "opts",
        "timestamp",
        "delay",
        "priority",
        "parentKey",
        "parent",
        "rjk",
        "deid",
        "processedOn",
    ),
    *(
        "pb",
        "ats",
        "atm",
        "attemptsMade",
        "stc",
        "defa",
        "failedReason",
        "stacktrace",
        "returnvalue",
        "finishedOn",
    ),
    *("progress", "tm", "nrjid"),
)
"""wire § 3."""
ENDING_FIELDS = ("parent", "parentKey", "deid", "priority", "atm", "stc", "rjk")
"""Those that the end of a job, or of its worker, reads again."""
OPTIONS = (
    *(
        "{nope",
        "null",
        "[]",
        "7",
        '"text"',
        "",
        '{"repeat":5}',
        '{"repeat":{"count":"x"}}',
        '{"group":{"id":1}}',
    ),
    '{"attempts":1e300,"backoff":{"type":"exponential","delay":1e300},"kl":1e99,"stackTraceLimit":-3}',
    '{"removeOnComplete":{"age":1e300,"count":-5},"removeOnFail":{"age":1e300,"count":-5}}',
    *(
        '{"removeOnComplete":{"age":1e300,"limit":"x"}}',
        '{"removeOnComplete":"many","removeOnFail":[]}',
    ),
    *(
        '{"priority":"high","lifo":"no","delay":"soon"}',
        '{"de":5}',
        '{"parent":[1]}',
        '{"attempts":"many"}',
    ),
)
TAKEN_IDS = (b"dn:d", b"de:d", b"repeat:s")
"""Keys that belong to something else."""
CLASHING_IDS = (b"plain:lock", b"plain:logs", b"plain:dependencies")
"""Keys that another job makes use of."""
ODD_IDS = (
    *(
        b"\xff\xfe",
        b"a\xc3",
        b"a:b\nc d",
        b"\x00",
        b"",
        b"%s%n",
        "größe".encode(),
        b"x" * 10_000,
        b"{a}",
        b"de:x",
    ),
    *(b"delay", b"metrics", b"12", *TAKEN_IDS, *CLASHING_IDS),
)
ENDS = ("complete", "fail", "retry", "later", "snooze")
POLICIES = ("", "fpof", "cpof", "idof", "rdof")


@dataclass(frozen=True, slots=True)
class Damage:
    """How a key is damaged.

    Attributes:
        kind: `type`: it is one of another type. `job`: it is a job's hash. `text`: a string with
            this value. `field`: this field of the hash has this value, or none. `member`: the
            sorted set has this member, with the value as its score.
        value: The type, the text, the field's value or the score; `{base}` in it is
        `<prefix>:<queue>:`.
        name: The field or the member.
    """

    kind: str
    value: str | bytes | None
    name: str = ""

    @property
    def label(self) -> str:
        """For the case's id."""
        if self.value is None and self.name:
            return f"no-{self.name}"
        label = repr(self.value)[:40] if self.kind not in {"type", "job"} else str(self.value)
        return f"{self.name}={label}" if self.name else label


@dataclass(frozen=True, slots=True)
class Intruder:
    """An id that stands in a container.

    Attributes:
        id: Any bytes.
        place: The container.
        own: What its own key is: `job`; `none`: it has none, or what is there is one of the queue's
            keys. `taken`: what is there belongs to something else. `clash`: it is a job, at a key
            that another job makes use of. Such an id may lose its key at any moment, so nothing is
            asked of it.
        data: The job's data.
        completes: Whether it is as innocent as the others, whatever its id.
    """

    id: bytes
    place: str
    own: str
    data: bytes = b"{}"
    completes: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One story.

    Attributes:
        id: Unique, and readable.
        group: What it is about.
        when: `before`: the worker finds it. `held`: jobs are running. `abandoned`: a dead worker
            left all jobs in `active`, and their locks have run out. `released`: the same, and they
            are taken back at once.
        key: What follows `<prefix>:<queue>:`, or that of the parent's queue where it begins with
            `^`; empty where nothing is damaged.
        damage: How.
        more: What else is damaged, as key and damage.
        intruder: An id that is put beside the jobs.
        victim: Whose processor is awaited where jobs are held.
        near: Which of the `ROLES` the damage may hurt; all others are innocent. None: it may hurt
        each of them.
        ends: What the victim's processor does.
        policy: What a failing child does to its parent (wire § 6.22).
        parent: More fields of the parent.
        meta: More settings of the queue.
        in_line: Whether all jobs are in the waiting list, and none is delayed or has a priority.
        everywhere: Whether it is run at each concurrency; the others take turns.
    """

    id: str
    group: str
    when: str = "before"
    key: str = ""
    damage: Damage | None = None
    intruder: Intruder | None = None
    more: tuple[tuple[str, Damage], ...] = ()
    victim: str = "plain"
    near: tuple[str, ...] | None = ()
    ends: str = "complete"
    policy: str = ""
    parent: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    meta: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    in_line: bool = False
    everywhere: bool = False

    @property
    def replaces(self) -> bool:
        """Whether the damaged key is put aside and another one stands in its place."""
        return self.damage is not None and self.damage.kind in {"type", "job", "text"}

    @property
    def key_word(self) -> bool:
        """Whether the intruder's id is a key word."""
        return self.intruder is not None and self.intruder.id.decode(errors="replace") in KEY_WORDS

    @property
    def ghost(self) -> bool:
        """Whether the intruder has no job, and is to get none."""
        return (
            self.intruder is not None
            and self.intruder.own == "none"
            and (self.key in STOPPERS or not self.replaces)
        )

    @property
    def stops(self) -> bool:
        """Whether nobody can work until the key is repaired."""
        return (
            self.key in STOPPERS
            and self.replaces
            and not (self.key == "meta" and self.damage == Damage("job", None))
        )

    @property
    def aside(self) -> tuple[str, str]:
        """The damaged container of the queue, and that of the parent's queue: empty where it is
        none.
        """
        if not self.replaces:
            return "", ""
        return ("", self.key[1:]) if self.key.startswith("^") else (self.key, "")


def all_cases() -> list[Case]:
    """The whole matrix, in a fixed order."""
    cases = [
        case
        for group in (
            *(
                _queue_keys,
                _counters,
                _settings,
                _metrics,
                _job_keys,
                _job_fields,
                _options,
                _parents,
            ),
            *(_deduplication, _schedulers, _key_words, _odd_ids, _ghosts, _many),
        )
        for case in group()
    ]
    assert len({case.id for case in cases}) == len(cases)
    return cases


def all_runs(cases: Sequence[Case]) -> list[tuple[Case, int]]:
    """Each case at its concurrency, or at each of them."""
    turns = cycle(CONCURRENCIES)
    return [
        (case, slots)
        for case in cases
        for slots in (CONCURRENCIES if case.everywhere else (next(turns),))
    ]


def chosen(cases: Sequence[Case]) -> list[tuple[Case, int]]:
    """What is run: a seeded sample, and everything where CI is true.

    TEST_DAMAGE_CASES is another number of runs, or a pattern of their names: `queue/wait=*`, or
    `*@10` for all cases at one concurrency.
    """
    label = os.environ.get("TEST_DAMAGE_CASES", "")
    if label and not label.isdecimal():
        every = product(cases, CONCURRENCIES)
        return [
            (case, slots) for case, slots in every if fnmatchcase(f"{case.id}@{slots}", label + "*")
        ]
    runs = all_runs(cases)
    if not label and os.environ.get("CI") == "true":
        return runs
    return sampled(runs, int(label or SAMPLE))


def sampled(runs: Sequence[tuple[Case, int]], count: int) -> list[tuple[Case, int]]:
    """So many, from each group in turn, so that a small sample has all of them."""
    shuffled = random.Random(SEED).sample(runs, len(runs))
    groups: dict[str, list[tuple[Case, int]]] = {}
    for run in shuffled:
        groups.setdefault(run[0].group, []).append(run)
    taken: list[tuple[Case, int]] = []
    while len(taken) < min(count, len(runs)):
        for waiting in [groups[name] for name in sorted(groups)]:
            if waiting and len(taken) < count:
                taken.append(waiting.pop())
    return taken


def _wrong(right: str) -> Iterator[Damage]:
    return (Damage("type", kind) for kind in TYPES if kind != right)


def _queue_keys() -> Iterator[Case]:
    ends = cycle(ENDS)
    for (key, right), when in product(
        QUEUE_KEYS.items(), ("before", "held", "abandoned", "released")
    ):
        for damage in _wrong(right):
            meta = {"max": "1000", "duration": "1000"} if key == "limiter" else {}
            label = f"queue/{key}={damage.label}/{when}"
            everywhere = when in {"before", "held"}
            yield Case(
                label,
                "queue",
                when,
                key,
                damage,
                near=None,
                ends=next(ends),
                meta=meta,
                everywhere=everywhere,
            )


def _counters() -> Iterator[Case]:
    ends = cycle(ENDS)
    for key, text, when in product(
        ("id", "pc", "limiter", "stalled-check"), NUMBERS, ("before", "held")
    ):
        meta = {"max": "1000", "duration": "1000"} if key == "limiter" else {}
        damage = Damage("text", text)
        label = f"counter/{key}={damage.label}/{when}"
        yield Case(
            label,
            "counter",
            when,
            key,
            damage,
            near=None,
            ends=next(ends),
            meta=meta,
            everywhere=True,
        )


def _settings() -> Iterator[Case]:
    for name, text, when in product(
        ("opts.maxLenEvents", "concurrency", "max", "duration"), NUMBERS, ("before", "held")
    ):
        damage = Damage("field", text, name)
        meta = {"max": "1000"} if name == "duration" else {}
        yield Case(f"setting/{damage.label}/{when}", "setting", when, "meta", damage, meta=meta)
    yield Case(
        "setting/no-duration/before",
        "setting",
        key="meta",
        damage=Damage("field", None, "duration"),
        meta={"max": "9"},
    )


def _metrics() -> Iterator[Case]:
    for ending, name, text in product(
        ("completed", "failed"), ("count", "prevTS", "prevCount"), NUMBERS
    ):
        damage, key = Damage("field", text, name), f"metrics:{ending}"
        ends = "complete" if ending == "completed" else "fail"
        for when in ("before", "held"):
            label = f"metrics/{key}:{damage.label}/{when}"
            yield Case(label, "metrics", when, key, damage, near=("plain",), ends=ends)


def _job_keys() -> Iterator[Case]:
    ends = cycle(ENDS)
    for role, (suffix, right), when in product(
        ROLES, JOB_KEYS.items(), ("before", "held", "abandoned", "released")
    ):
        if when in {"abandoned", "released"} and suffix not in {"", ":lock"}:
            continue
        for damage in _wrong(right):
            label, everywhere = f"job/{role}{suffix}={damage.label}/{when}", role == "plain"
            yield Case(
                label,
                "job",
                when,
                role + suffix,
                damage,
                victim=role,
                near=(role,),
                ends=next(ends),
                everywhere=everywhere,
            )


def _job_fields() -> Iterator[Case]:
    for name, text in product(JOB_FIELDS, TEXTS):
        damage = Damage("field", text, name)
        yield Case(
            f"field/{damage.label}/before",
            "field",
            key="plain",
            damage=damage,
            near=("plain",),
            ends="retry",
        )
    roles, ends = cycle(ROLES), cycle(ENDS)
    for name, text, when in product(ENDING_FIELDS, TEXTS, ("held", "abandoned", "released")):
        damage, role = Damage("field", text, name), next(roles)
        label = f"field/{role}:{damage.label}/{when}"
        yield Case(label, "field", when, role, damage, victim=role, near=(role,), ends=next(ends))


def _options() -> Iterator[Case]:
    roles = cycle(ROLES)
    for text, ends in product(OPTIONS, ("complete", "fail")):
        damage, role = Damage("field", text, "opts"), next(roles)
        label = f"options/{role}:{text}/{ends}"
        yield Case(label, "options", key=role, damage=damage, victim=role, near=(role,), ends=ends)


def _parents() -> Iterator[Case]:
    policies, delays = cycle(POLICIES), cycle(({}, {"delay": "3600000"}, {"priority": "5"}))
    for when in ("before", "held"):
        for suffix, right in JOB_KEYS.items():
            for damage in _wrong(right):
                policy = next(policies)
                label = f"parent/1{suffix}={damage.label}/{when}/{policy or 'completes'}"
                yield _child(label, when, f"^1{suffix}", damage, policy, next(delays))
        for name in PARENT_QUEUE_KEYS:
            needed = {
                "delayed": {"delay": "3600000"},
                "prioritized": {"priority": "5"},
                "pc": {"priority": "5"},
            }
            for damage in _wrong(QUEUE_KEYS[name]):
                policy = next(policies)
                label = f"parent/queue:{name}={damage.label}/{when}/{policy or 'completes'}"
                yield _child(label, when, f"^{name}", damage, policy, needed.get(name, {}))
        for text in NUMBERS:
            yield _child(
                f"parent/queue:pc={text!r}/{when}",
                when,
                "^pc",
                Damage("text", text),
                "",
                {"priority": "5"},
            )
            for name in ("delay", "priority"):
                yield _child(
                    f"parent/1:{name}={text!r}/{when}",
                    when,
                    "^1",
                    Damage("field", text, name),
                    "",
                    {},
                )
    for text in (
        "{bad",
        "[1]",
        '{"id":5,"queueKey":7}',
        '{"id":{},"queueKey":[]}',
        '{"id":"1"}',
        "null",
    ):
        damage = Damage("field", text, "parent")
        yield _child(f"parent/child:parent={text}", "before", "child", damage, "", {})
    for text in ("", ":", "nothing", "a:b", "meta", b"\xff:\xfe"):
        damage = Damage("field", text, "parentKey")
        yield _child(f"parent/child:parentKey={damage.label}", "before", "child", damage, "", {})


def _child(
    label: str, when: str, key: str, damage: Damage, policy: str, parent: Mapping[str, str]
) -> Case:
    ends = "fail" if policy else "complete"
    return Case(
        label,
        "parent",
        when,
        key,
        damage,
        victim="child",
        near=("child",),
        ends=ends,
        policy=policy,
        parent=parent,
    )


def _deduplication() -> Iterator[Case]:
    ends = cycle(ENDS)
    for (key, right), when in product(
        {"de:d": "string", "dn:d": "hash"}.items(), ("before", "held")
    ):
        for damage in _wrong(right):
            label = f"deduplication/{key}={damage.label}/{when}"
            yield _owner(label, when, key, damage, next(ends))
    for name in ("name", "data", "opts", "jid"):
        yield _owner(f"deduplication/dn:d:no-{name}", "before", "dn:d", Damage("field", None, name))
    for text in (
        "{bad",
        "null",
        "[1]",
        "7",
        '{"de":5}',
        '{"de":{"ttl":"x"}}',
        '{"de":{"ttl":1e400}}',
        '{"delay":"x"}',
    ):
        yield _owner(
            f"deduplication/dn:d:opts={text}", "before", "dn:d", Damage("field", text, "opts")
        )
    for text in (
        "",
        "plain",
        "i00",
        "completed",
        "wait",
        "meta",
        "marker",
        "owner",
        b"\xff",
        "a:b",
    ):
        damage = Damage("field", text, "jid")
        yield _owner(f"deduplication/dn:d:{damage.label}", "before", "dn:d", damage)
    for name, text in product(("pk", "pd", "pdk", "rjk"), ("", "{bad", "i01")):
        yield _owner(
            f"deduplication/dn:d:{name}={text!r}", "before", "dn:d", Damage("field", text, name)
        )
    for name in (
        "wait",
        "paused",
        "failed",
        "waiting-children",
        "marker",
        "owner",
    ):  # SADD would make it, or fail
        yield _owner(
            f"deduplication/dn:d:pdk={name}",
            "before",
            "dn:d",
            Damage("field", f"{{base}}{name}", "pdk"),
        )


def _owner(label: str, when: str, key: str, damage: Damage, ends: str = "complete") -> Case:
    # the id that another client has given to the next job may be a job's that is there: each stays
    # in one place
    return Case(
        label, "deduplication", when, key, damage, victim="owner", near=("owner",), ends=ends
    )


def _schedulers() -> Iterator[Case]:
    for damage, when in product(_wrong("hash"), ("before", "held", "abandoned", "released")):
        yield _scheduler(f"scheduler/hash={damage.label}/{when}", when, "repeat:s", damage)
    fields = {
        "every": ("zero", "0", "-5", "0.4", "nan", "1e400", ""),
        "pattern": ("nonsense", "", "* * * * *"),
        **dict.fromkeys(
            ("offset", "startDate", "endDate", "limit", "ic"), ("abc", "", "nan", "1e400")
        ),
        "ic": ("abc", "", "1e400", "9223372036854775807"),
        "data": ("{oops", ""),
        "opts": ("{oops", "[1]"),
        "tz": ("Nowhere/Land",),
    }
    for name, texts in fields.items():
        for text in texts:
            damage = Damage("field", text, name)
            yield _scheduler(f"scheduler/{damage.label}", "before", "repeat:s", damage)
    for name in ("every", "name", "ic"):
        yield _scheduler(f"scheduler/no-{name}", "before", "repeat:s", Damage("field", None, name))
    for score in ("inf", "-inf", "0", "0.5", "1e300"):
        yield _scheduler(
            f"scheduler/score={score}", "before", "repeat", Damage("member", score, "s")
        )
    for name, text in product(
        ("rjk", "opts"), ("", "null", "[1]", '{"repeat":5}', '{"repeat":{"count":1e400}}', "s:1")
    ):
        damage = Damage("field", text, name)
        yield _scheduler(f"scheduler/iteration:{damage.label}", "before", ITERATION, damage)


def _scheduler(label: str, when: str, key: str, damage: Damage) -> Case:
    return Case(label, "scheduler", when, key, damage, victim=ITERATION, near=(ITERATION,))


def _key_words() -> Iterator[Case]:
    """Trap T9: a key word as a job's id, with a job of its own, or with none but the queue's own
    key.
    """
    for word, place in product(sorted(KEY_WORDS), ("wait", "prioritized", "delayed", "active")):
        when = "abandoned" if place == "active" else "before"
        id_ = word.encode()
        everywhere = place == "wait"
        yield Case(
            f"word/{word}/{place}/none",
            "word",
            when,
            intruder=Intruder(id_, place, "none"),
            near=None,
            everywhere=everywhere,
        )
        if place in {"active", word}:
            continue
        if word in LAID_OUT:
            key, damage, intruder = word, Damage("job", None), Intruder(id_, place, "none")
        else:
            key, damage, intruder = "", None, Intruder(id_, place, "job")
        yield Case(
            f"word/{word}/{place}/job",
            "word",
            when,
            key,
            damage,
            intruder,
            near=None,
            everywhere=everywhere,
        )
    for word in (
        "completed",
        "failed",
        "limiter",
        "stalled",
        "stalled-check",
        "pc",
        "metrics:failed:data",
    ):
        # it comes while jobs are running
        yield Case(
            f"word/{word}/held",
            "word",
            "held",
            intruder=Intruder(word.encode(), "wait", "job"),
            near=None,
        )


def _odd_ids() -> Iterator[Case]:
    for odd, place in product(ODD_IDS, ("wait", "prioritized", "delayed", "active")):
        when = "abandoned" if place == "active" else "before"
        own = "taken" if odd in TAKEN_IDS else "clash" if odd in CLASHING_IDS else "job"
        near = () if own == "job" else ("owner", ITERATION, "plain")
        intruder = Intruder(odd, place, own, completes=own == "job")
        yield Case(
            f"id/{odd[:20]!r}/{place}",
            "id",
            when,
            intruder=intruder,
            near=near,
            everywhere=place == "wait",
        )
    for odd in (b"\xff\xfe", b"a:b\nc d"):
        yield Case(
            f"id/{odd!r}/fails", "id", intruder=Intruder(odd, "wait", "job", b'{"does":"fail"}')
        )
    big = b'{"text":"' + b"x" * 3_000_000 + b'"}'
    for place in ("wait", "delayed"):
        yield Case(
            f"id/3-MB/{place}", "id", intruder=Intruder(b"big", place, "job", big, completes=True)
        )


def _ghosts() -> Iterator[Case]:
    for ghost, place in product(
        (b"ghost", b"\xff\xfe", b"repeat:s:1", b"0:1"), ("wait", "prioritized", "delayed", "active")
    ):
        when = "abandoned" if place == "active" else "before"
        yield Case(
            f"ghost/{ghost!r}/{place}",
            "ghost",
            when,
            intruder=Intruder(ghost, place, "none"),
            everywhere=True,
        )
    for member in ("x", "2", ""):
        yield Case(
            f"ghost/marker/{member!r}", "ghost", key="marker", damage=Damage("member", "0", member)
        )


def _many() -> Iterator[Case]:
    """Several at once: a batch of endings has more than one bad one."""
    string = Damage("type", "string")
    everywhere = [
        ("plain:logs", string),
        ("^1:dependencies", Damage("type", "list")),
        ("dn:d", Damage("type", "list")),
        ("repeat:s", Damage("type", "list")),
        ("urgent:dependencies", string),
        ("late", Damage("field", "many", "priority")),
        ("events", Damage("type", "hash")),
        ("pc", Damage("type", "list")),
        ("id", Damage("type", "hash")),
        ("marker", string),
        ("metrics:completed", Damage("field", "many", "count")),
    ]
    stories = {
        "jobs": [(role, string) for role in ROLES],
        "dependencies": [(f"{role}:dependencies", string) for role in ROLES],
        "unsuccessful": [(f"{role}:unsuccessful", Damage("type", "list")) for role in ROLES],
        "locks": [(f"{role}:lock", Damage("type", "hash")) for role in ROLES],
        "everywhere": everywhere,
    }
    for (name, damages), when in product(
        stories.items(), ("before", "held", "abandoned", "released")
    ):
        (key, damage), *more = damages
        intruder = Intruder(b"limiter", "active" if when == "abandoned" else "wait", "job")
        yield Case(
            f"many/{name}/{when}",
            "many",
            when,
            key,
            damage,
            intruder,
            tuple(more),
            near=None,
            ends="retry",
            everywhere=True,
        )
