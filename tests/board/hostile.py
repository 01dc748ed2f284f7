"""Hostile texts, a store that has them wherever data can be, and the pages that show them."""

from __future__ import annotations

import json
import time
from urllib.parse import quote, urlencode

import redis

__all__ = ["PAYLOADS", "fill", "lists", "pages"]

PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg/onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<body onload=alert(1)>",
    "<iframe src=javascript:alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<object data=javascript:alert(1)>",
    "<embed src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<button formaction=javascript:alert(1)>x</button>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>x</details>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)>",
    "<marquee onstart=alert(1)>x</marquee>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>*{background:url(//evil.example)}</style>",
    "<math><mtext></mtext><script>alert(1)</script></math>",
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea></textarea><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</time><img src=x onerror=alert(1)>",
    "</select><script>alert(1)</script>",
    "<!--<script>alert(1)</script>-->",
    "--><script>alert(1)</script>",
    "<![CDATA[<script>alert(1)</script>]]>",
    "]]><script>alert(1)</script>",
    "<?xml version='1.0'?><script>alert(1)</script>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "x onmouseover=alert(1) y=",
    "` onmouseover=alert(1)",
    '" autofocus onfocus=alert(1) x="',
    '" style="position:fixed;inset:0',
    '" hx-get="/queues/letters/drain" hx-trigger="load',
    '" hx-on:load="alert(1)',
    '" data-live="//evil.example',
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "//evil.example/x.js",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "%3Cscript%3Ealert(1)%3C/script%3E",
    "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e",
    "{{ 7*7 }}{% for x in (1,) %}<script>alert(1)</script>{% endfor %}",
    "${alert(1)}<script>alert(1)</script>#{alert(1)}",
    "\uff1cscript\uff1ealert(1)\uff1c/script\uff1e\u2028<script>alert(1)</script>",
    "\x00<scr\x00ipt>alert(1)</script>\x1b[31m\u202e<script>alert(1)</script>",
]
STATES = {
    "failed": "zset",
    "completed": "zset",
    "delayed": "zset",
    "prioritized": "zset",
    "wait": "list",
    "active": "list",
}


def job_id(text: str, state: str) -> str:
    return f"{text}!{state}"


def fill(store: redis.Redis, texts: list[str], queue: str = "letters") -> None:
    """Put each text wherever a client, a worker or another process could write it."""
    now = int(time.time() * 1000)
    events = 0
    for at, text in enumerate(texts):
        for state, kind in STATES.items():
            given = job_id(text, state)
            data = {
                "to": text,
                "text": text,
                "pages": text,
                text: text,
                "deep": [{text: [text, {"x": text}]}],
            }
            fields = {
                "name": text,
                "data": json.dumps(data),
                "opts": json.dumps(
                    {"attempts": 3, "jobId": text, text: text, "repeat": {"pattern": text}}
                ),
                "timestamp": now - 1000,
                "delay": 0,
                "priority": 0,
                "processedOn": now - 500,
                "atm": 2,
                "ats": 3,
                "pb": text,
                "parentKey": text,
                "parent": json.dumps({"id": text, "queueKey": text}),
                "deid": text,
                "rjk": text,
                "nrjid": text,
                "progress": json.dumps({text: text}) if at % 2 else json.dumps(text),
                "stacktrace": json.dumps([text, f"Traceback:\n  {text}\n{text}"]),
            }
            if state == "failed":
                fields |= {"failedReason": text, "finishedOn": now}
            if state == "completed":
                fields |= {"returnvalue": json.dumps({text: text}), "finishedOn": now}
            store.hset(f"bull:{queue}:{given}", mapping=fields)
            store.rpush(f"bull:{queue}:{given}:logs", text, text)
            if kind == "zset":
                store.zadd(f"bull:{queue}:{state}", {given: now + at})
            else:
                store.rpush(f"bull:{queue}:{state}", given)
            event = {"event": "failed", "jobId": given, "failedReason": text, "prev": text}
            events += 1
            store.xadd(
                f"bull:{queue}:events", event, id=f"{now - 400}-{events}"
            )  # as long after the start, every time
        aside = f"corral:bull:{queue}:quarantine"
        kept = {"at": now + at, "from": text, "reason": text, "key": f"{aside}:{text}"}
        store.hset(aside, text, json.dumps(kept))
        store.hset(f"{aside}:{text}", "data", text)
        store.hset(
            aside,
            f"{text}?",
            json.dumps({"at": now - at, "from": "wait", "reason": text, "key": text}),
        )
        store.zadd(f"bull:{queue}:repeat", {text: now + 60_000})
        store.hset(
            f"bull:{queue}:repeat:{text}",
            mapping={"name": text, "pattern": text, "tz": text, "ic": 1},
        )
        store.hset(f"bull:{text}:meta", "version", text)
        record = {
            "distribution": text,
            "version": text,
            "fingerprint": text,
            "role": "worker",
            "time": now,
        }
        details = json.dumps([text, text, {queue: record, text: record}])
        sign = f"{now} 0 0 {now} 1 {''.join(text.split()) or '-'} {details}"
        store.hset("corral:bull:alive", f"{text}-1-1", sign)
        record_text = json.dumps({queue: record, text: record})
        store.hset("corral:bull:catalog", f"{text}-1-1", f"{now} {record_text}")
        entry = {
            "who": text,
            "what": text,
            "queue": text,
            "job": text,
            "before": json.dumps(text),
            "after": text,
        }
        store.xadd("corral:bull:audit", {"prefix": "bull", **entry, "count": 1})


def lists(queue: str = "letters") -> list[str]:
    """Pages that list many things."""
    states = ("failed", "completed", "delayed", "prioritized", "waiting", "active")
    return [
        "/",
        *(f"/queues/{queue}?state={state}" for state in states),
        f"/queues/{queue}/quarantine",
        *("/workers", "/catalog", "/schedules", "/audit"),
    ]


def pages(text: str, queue: str = "letters") -> list[tuple[str, int]]:
    """The pages for one text, each with its status; the order is the same for every text."""

    def job(job_id: str, rest: str = "") -> str:
        return f"/queues/{queue}/jobs/{quote(job_id, safe='')}{rest}"

    query = {"q": job_id(text, "wait"), "notice": "added", "id": text, "n": text}
    return [
        (job(job_id(text, "failed")), 200),
        (job(job_id(text, "completed")), 200),
        (job(job_id(text, "active"), "/logs"), 200),
        (job(job_id(text, "wait"), "/edit"), 200),
        (f"/search?{urlencode({'q': job_id(text, 'failed')})}", 200),
        (f"/queues/{queue}?{urlencode(query)}", 200),
        (f"/queues/{queue}?{urlencode({'state': text})}", 400),
        (job(text), 404),
        (f"/queues/{quote(text, safe='')}", 404),
        (f"/{quote(text, safe='')}", 404),
    ]
