"""One step, spelt for each side: a job, an ending, a fetched job, from a program's plain words."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from corral.options import JobOptions, Retention, backoff_delay_ms
from corral.outcome import Completed, Failed, HandedBack, Outcome, QueueLimited, Retried, Snoozed
from corral.store.codec import FetchedJob, NewJob

THEIRS, OURS = "theirs", "ours"
"""The prefixes: one server, two key spaces. They distinguish keys that contain keys."""


def declared(retention: dict[str, dict[str, int]]) -> JobOptions:
    def kept(name: str) -> Retention:
        age = retention[name].get("age")
        return Retention(
            None if age is None else timedelta(seconds=age), retention[name].get("count")
        )

    return JobOptions(keep_completed=kept("removeOnComplete"), keep_failed=kept("removeOnFail"))


def new_job(job: dict[str, Any], nonce: str) -> NewJob:
    opts = {"kl" if name == "keepLogs" else name: value for name, value in job["opts"].items()}
    return NewJob(
        job["id"],
        job["name"],
        json_text(job["data"]),
        json_text(opts | {"corral": {"nonce": nonce}}),
        opts.get("delay", 0),
        opts.get("priority", 0),
        opts.get("lifo", False),
        nonce,
    )


def outcome(job: FetchedJob, wanted: dict[str, Any]) -> Outcome:
    """The decision that BullMQ's worker takes by itself (wire 6.8), as Corral's worker takes it."""
    match wanted["kind"]:
        case "complete":
            return Completed(json_text(wanted["value"]))
        case "snooze":
            return Snoozed(wanted["delay_ms"])
        case "hand_back":
            return HandedBack()
        case "rate_limit":
            return QueueLimited(wanted["delay_ms"])
    reason, traceback, failures = wanted["reason"], wanted["traceback"], job.attempts_made + 1
    if wanted["final"] or failures >= job.options.attempts:
        return Failed(reason, traceback)
    if job.options.unknown_backoff:
        return Retried(reason, wanted["delay_ms"], traceback)
    return Retried(
        reason,
        backoff_delay_ms(job.options.backoff, failures) if job.options.backoff else 0,
        traceback,
    )


def as_theirs(outcome: dict[str, Any]) -> dict[str, Any]:
    """An outcome whose reason may name a child's key."""
    texts = {
        name: outcome[name].replace(f"{OURS}:", f"{THEIRS}:")
        for name in ("reason", "traceback")
        if name in outcome
    }
    return outcome | texts


def summary(job: FetchedJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "data": json.loads(job.data),
        "attempts_made": job.attempts_made,
        "attempts_started": job.attempts_started,
        "deferred_failure": job.deferred_failure and job.deferred_failure.replace(f"{OURS}:", "~:"),
    }


def their_summary(job: dict[str, Any]) -> dict[str, Any]:
    fields = {name: job[name] for name in ("id", "name", "attempts_made", "attempts_started")}
    deferred = job["deferred_failure"]
    fields["deferred_failure"] = deferred and deferred.replace(f"{THEIRS}:", "~:")
    return fields | {"data": json.loads(job["data"])}


def json_text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
