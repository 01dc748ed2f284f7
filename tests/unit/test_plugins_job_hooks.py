"""The hooks that run with every job: free where nobody listens, and nobody's fault reaches the
worker.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from corral import Payload, Queue, hookimpl
from corral.job import Job
from corral.outcome import Completed
from corral.testing import job as make_job
from logged import capture_logs

SUBSCRIBER = """
from contextlib import contextmanager
seen = []
@hookimpl
def corral_enqueuing(queue, payload):
    seen.append("enqueuing")
    {fault}
    return {{"by": __name__}}
@hookimpl
def corral_job_context(job):
    @contextmanager
    def context():
        seen.append(f"enter {{job.id}}")
        {fault}
        try:
            yield
        except BaseException as error:
            seen.append(type(error).__name__)
            raise
        finally:
            seen.append("leave")
    return context()
@hookimpl
def corral_job_ended(outcome):
    seen.append(type(outcome).__name__)
    {fault}
"""


class Nothing(Payload):
    pass


queue = Queue("nothing", Nothing)


@pytest.fixture
def job() -> Job[Nothing]:
    return make_job(queue, Nothing(), id="7")


@pytest.fixture
def two(site: Any) -> Any:
    """`two(fault)`: job hooks with the subscribers `bad`, which has the fault, and `good`; and the
    modules.
    """

    def load(fault: str) -> Any:
        for name, body in (("bad", fault), ("good", "pass")):
            site.module(name, SUBSCRIBER.format(fault=body))
            site.install(name, f"{name} = {name}", group="corral.plugins")
        plugins = site.load()
        assert plugins.report.problems == []
        return plugins.job_hooks, sys.modules["bad"].seen, sys.modules["good"].seen

    return load


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("[('x', '1')]", "list in place of a mapping of texts to texts"),
        ("True", "bool in place of a mapping of texts to texts"),
        ("{'x': 1}", "a mapping of str to int in place of a mapping of texts to texts"),
        ("{b'x': '1'}", "a mapping of bytes to str in place of a mapping of texts to texts"),
        ("{'x': '\\ud800'}", "a text with half a surrogate pair, which JSON cannot hold"),
    ],
)
def test_a_wrong_return_of_enqueuing_is_logged_once_and_stops_nothing(
    returned: str, reason: str, two: Any
) -> None:
    job_hooks, bad, _ = two(f"return {returned}")
    with capture_logs() as logs:
        added = [job_hooks.enqueuing(queue, Nothing()) for _ in range(3)]
    assert added == [{"by": "good"}] * 3
    assert bad == ["enqueuing"] * 3, "it is called again all the same"
    (line,) = logs
    assert (line["hook"], line["provider"]) == ("corral_enqueuing", "bad 1.0 (wheel)")
    assert (line["log_level"], line["error"]) == ("error", reason)


def test_a_mapping_that_cannot_be_read_is_a_fault_of_the_subscriber(two: Any) -> None:
    lost = "type('Lost', (dict,), {'items': lambda self: self.lost})()"
    job_hooks, *_ = two(f"return {lost}")
    with capture_logs() as logs:
        assert job_hooks.enqueuing(queue, Nothing()) == {"by": "good"}
    assert [line["error"] for line in logs] == [
        "AttributeError: 'Lost' object has no attribute 'lost'"
    ]


def test_what_several_add_is_merged_and_the_one_called_later_wins(two: Any) -> None:
    job_hooks, *_ = two("return {'by': 'bad', 'only': 'here'}")
    assert job_hooks.enqueuing(queue, Nothing()) == {"by": "bad", "only": "here"}


def test_one_that_returns_none_adds_nothing(two: Any) -> None:
    job_hooks, *_ = two("return None")
    with capture_logs() as logs:
        assert job_hooks.enqueuing(queue, Nothing()) == {"by": "good"}
    assert logs == []


def test_without_subscribers_there_is_nothing_to_call(site: Any) -> None:
    job_hooks = site.load().job_hooks
    assert (job_hooks.enqueuing, job_hooks.job_context, job_hooks.job_ended) == (None, None, None)


def test_everybody_is_called_with_what_he_asks_for(two: Any, job: Job[Nothing]) -> None:
    job_hooks, *seen = two("pass")
    job_hooks.enqueuing(queue, Nothing())
    with job_hooks.job_context(job):
        pass
    job_hooks.job_ended(job, Completed())
    assert seen == [["enqueuing", "enter 7", "leave", "Completed"]] * 2


@pytest.mark.parametrize("fault", ["raise LookupError('no span')", "raise SystemExit(1)"])
def test_one_that_raises_stops_neither_the_others_nor_the_worker(
    fault: str, two: Any, job: Job[Nothing]
) -> None:
    job_hooks, _, good = two(fault)
    with capture_logs() as logs:
        job_hooks.enqueuing(queue, Nothing())
        with job_hooks.job_context(job):
            good.append("processor")
        job_hooks.job_ended(job, Completed())
    assert good == ["enqueuing", "enter 7", "processor", "leave", "Completed"]
    assert [(line["hook"], line["provider"]) for line in logs] == [
        ("corral_enqueuing", "bad 1.0 (wheel)"),
        ("corral_job_context", "bad 1.0 (wheel)"),
        ("corral_job_ended", "bad 1.0 (wheel)"),
    ]


@pytest.mark.parametrize(
    "fault", ["KeyboardInterrupt('x')", "GeneratorExit('x')", "asyncio.CancelledError('x')"]
)
def test_in_a_worker_nothing_that_is_raised_ends_it_or_loses_the_job(
    fault: str, two: Any, job: Job[Nothing]
) -> None:
    job_hooks, _, good = two(f"import asyncio; raise {fault}")
    with capture_logs() as logs:
        with job_hooks.job_context(job):
            good.append("processor")
        job_hooks.job_ended(job, Completed())
    assert good == ["enter 7", "processor", "leave", "Completed"]
    assert [line["hook"] for line in logs] == ["corral_job_context", "corral_job_ended"]
    with (
        capture_logs(),
        pytest.raises(BaseException, match="x"),
    ):  # a producer's Ctrl-C is the producer's
        job_hooks.enqueuing(queue, Nothing())


@pytest.mark.parametrize("fault", ["Exception", "SystemExit", "KeyboardInterrupt", "GeneratorExit"])
def test_an_exception_of_which_no_traceback_can_be_made_is_logged_by_its_class(
    fault: str, two: Any, job: Job[Nothing], caplog: pytest.LogCaptureFixture
) -> None:
    no = f"lambda *_: (each for each in ()).throw({fault})"
    names = "'__getattr__', '__str__', '__repr__'"
    members = f"dict.fromkeys([{names}], {no}) | dict(__notes__=property({no}))"
    job_hooks, *seen = two(f"raise type('Evil', ({fault},), {members})")
    for _ in range(2):
        job_hooks.job_ended(job, Completed())
    assert seen == [["Completed"] * 2] * 2
    assert caplog.text.count("error='Evil: its text cannot be read'") == 1


def test_it_is_logged_once_with_its_traceback(two: Any, job: Job[Nothing]) -> None:
    job_hooks, bad, _ = two("raise LookupError('no span')")
    with capture_logs() as logs:
        for _ in range(3):
            job_hooks.job_ended(job, Completed())
    assert bad == ["Completed"] * 3, "it is called again all the same"
    (line,) = logs
    assert line["log_level"] == "error"
    assert line["error"] == "LookupError: no span"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("\nLookupError: no span")


def test_what_is_secret_in_the_payload_is_masked_in_what_a_subscriber_raises(site: Any) -> None:
    class Login(Payload):
        password: str

    site.module(
        "leaky", "@hookimpl\ndef corral_enqueuing(payload): raise LookupError(payload.password)"
    )
    site.install("leaky", "leaky = leaky", group="corral.plugins")
    with capture_logs() as logs:
        site.load().job_hooks.enqueuing(Queue("logins", Login), Login(password="hunter2-hunter2"))
    (line,) = logs
    assert line["error"] == "LookupError: ••••••"
    assert "hunter2" not in line["exception"]


def test_a_context_sees_the_processor_s_exception_and_passes_it_on(
    two: Any, job: Job[Nothing]
) -> None:
    job_hooks, bad, good = two("pass")
    with capture_logs() as logs, pytest.raises(KeyError), job_hooks.job_context(job):
        raise KeyError("from the processor")
    assert bad == good == ["enter 7", "KeyError", "leave"]
    assert logs == [], "that is no fault of theirs"


def test_contexts_are_left_in_the_reverse_of_the_order_in_which_they_were_entered(
    site: Any, job: Job[Nothing]
) -> None:
    site.module("order", "seen = []")
    for name in ("outer", "inner"):
        site.module(
            name,
            "from contextlib import contextmanager\nfrom order import seen\n@hookimpl\n"
            "@contextmanager\n"
            f"def corral_job_context():\n    seen.append('enter {name}')\n    yield\n"
            f"    seen.append('leave {name}')\n",
        )
    site.install(
        "b", "outer = outer", group="corral.plugins"
    )  # what is registered last is called first
    site.install("a", "inner = inner", group="corral.plugins")
    with site.load().job_hooks.job_context(job):
        pass
    assert sys.modules["order"].seen == ["enter outer", "enter inner", "leave inner", "leave outer"]


def test_a_context_cannot_swallow_how_a_job_ended(site: Any, job: Job[Nothing]) -> None:
    site.module(
        "bad",
        "import contextlib\n@hookimpl\ndef corral_job_context(): return"
        " contextlib.suppress(KeyError)",
    )
    site.install("bad", "bad = bad", group="corral.plugins")
    with pytest.raises(KeyError), site.load().job_hooks.job_context(job):
        raise KeyError("from the processor")


@pytest.mark.parametrize(
    "context",
    [
        "None",
        "contextlib.closing(object())",
        "contextlib.ExitStack().callback",
    ],
)
def test_what_is_no_context_manager_or_fails_on_leaving_is_logged(
    context: str, site: Any, job: Job[Nothing]
) -> None:
    site.module("bad", f"import contextlib\n@hookimpl\ndef corral_job_context(): return {context}")
    site.install("bad", "bad = bad", group="corral.plugins")
    with capture_logs() as logs, site.load().job_hooks.job_context(job):
        pass
    assert [line["hook"] for line in logs] == ["corral_job_context"]


def test_a_subscriber_s_fault_loads_neither_structlog_nor_a_store() -> None:
    program = """
import sys
from corral import Payload, Queue
from corral.plugins import PluginEntryPoint, Implementation, Provider, JobHooks
class Letter(Payload): pass
def raises(queue):
    raise LookupError
point = PluginEntryPoint("a", "a", "corral.plugins", Provider("a", "1", "wheel"))
raising = Implementation("corral_enqueuing", (point,), raises, ("queue",))
job_hooks = JobHooks({"corral_enqueuing": [raising]})
job_hooks.enqueuing(Queue("letters", Letter), Letter())
assert not {"structlog", "redis", "rich"} & set(sys.modules)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    assert ended.stdout == ""
    assert ended.stderr.startswith("a hook raised; ")
    assert ended.stderr.endswith("\nLookupError\n")


def test_corral_s_own_parts_are_called_first_and_are_blamed_like_others(
    site: Any, job: Job[Nothing]
) -> None:
    class Counter:
        def __init__(self) -> None:
            self.before: list[list[str]] = []

        @hookimpl
        def corral_job_ended(self, job: Job[Any]) -> None:
            self.before.append(list(sys.modules["good"].seen))
            raise RuntimeError("a bug of ours")

    site.module("good", SUBSCRIBER.format(fault="pass"))
    site.install("good", "good = good", group="corral.plugins")
    plugins, counter = site.load(), Counter()
    joined = plugins.with_own(counter)
    with capture_logs() as logs:
        joined.job_hooks.job_ended(job, Completed())
    assert (counter.before, sys.modules["good"].seen) == ([[]], ["Completed"])
    assert [line["provider"] for line in logs] == ["corral (built in)"]
    assert [each.provider.distribution for each in joined.implementations("corral_job_ended")] == [
        "corral",
        "good",
    ]
    assert len(plugins.implementations("corral_job_ended")) == 1, "the others are as they were"
    assert joined.job_hooks.enqueuing is not None
