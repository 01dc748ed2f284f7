"""The closed set: who is in it, what it costs, how it is asked, and what it says to a name it does
not have.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corral import Job, Payload, Queue
from corral.catalog import Catalog
from corral.errors import CatalogError, JobRefused, UnknownQueue

BOTH = """
{name} = Queue("{name}", P)
@hookimpl
def corral_queues(): return [{name}]
async def process(job): pass
@hookimpl
def corral_processors():
    import {name}_processor
    return [{name}.processed_by(process)]
"""


class Nothing(Payload):
    pass


@pytest.fixture
def two(site: Any) -> Any:
    """Two distributions, each with a queue and a module that only its processor needs."""
    for name in ("emails", "faxes"):
        site.module(name, BOTH.format(name=name))
        site.module(f"{name}_processor", "")
        site.install(f"corral-{name}", f"{name} = {name}")
    return site


def build(site: Any, *, disabled: tuple[str, ...] = (), **options: Any) -> Catalog:
    return Catalog.build(site.load(disabled=disabled), lock=None, **options)


def refusals(site: Any, **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(CatalogError) as refused:
        build(site, **options)
    return [(problem.code, problem.message) for problem in refused.value.problems]


def test_a_producer_has_the_queues_and_loads_no_processor(two: Any) -> None:
    catalog = build(two)
    assert [entry.queue.name for entry in catalog] == list(catalog.entries) == ["emails", "faxes"]
    assert [entry.processor for entry in catalog] == [None, None]
    assert catalog.served == ()
    assert len(catalog) == 2
    assert not {"emails_processor", "faxes_processor"} & sys.modules.keys()


def test_a_worker_asks_those_whose_queues_it_serves_and_nobody_else(two: Any) -> None:
    catalog = build(two, role="worker", serves=["faxes"])
    assert catalog.served == ("faxes",)
    assert catalog.get("faxes").processor is not None
    assert catalog.get("emails").processor is None
    assert "faxes_processor" in sys.modules
    assert "emails_processor" not in sys.modules


def test_of_a_distribution_with_two_queues_a_worker_has_the_processor_of_the_one_it_serves(
    site: Any,
) -> None:
    site.module(
        "acme",
        "a, b = Queue('a', P), Queue('b', P)\n"
        "@hookimpl\ndef corral_queues(): return [a, b]\n"
        "async def process(job): pass\n"
        "@hookimpl\ndef corral_processors(): return [a.processed_by(process),"
        " b.processed_by(process)]\n",
    )
    site.install("acme", "a = acme", "b = acme")
    catalog = build(site, role="worker", serves=["b"])
    assert [(entry.queue.name, entry.processor is not None) for entry in catalog] == [
        ("a", False),
        ("b", True),
    ]


@pytest.mark.parametrize("role", ["worker", "check"])
def test_a_worker_that_names_no_queue_serves_all_of_them(role: str, two: Any) -> None:
    catalog = build(two, role=role)
    assert catalog.served == ("emails", "faxes")
    assert all(entry.processor is not None and entry.processor.is_async for entry in catalog)


def test_a_catalog_is_frozen(two: Any) -> None:
    catalog = build(two)
    with pytest.raises(TypeError):
        catalog.entries["new"] = catalog.get("emails")  # type: ignore[index]  # the point
    with pytest.raises(FrozenInstanceError):
        catalog.entries = {}  # type: ignore[misc]  # the point


def test_a_queue_is_found_by_its_object_and_by_its_name(two: Any) -> None:
    catalog = build(two)
    entry = catalog.get("emails")
    assert catalog.get(entry.queue) is entry
    assert entry.provider.label == "corral-emails 1.0 (wheel)"


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ("emali", "did you mean 'emails'?"),
        ("E_Mails", "did you mean 'emails'?"),
        ("webhooks-outgoing", "the queues are: emails, faxes"),
    ],
)
def test_a_name_that_nobody_declares_is_refused_with_what_to_do(
    asked: str, hint: str, two: Any
) -> None:
    catalog = build(two)
    for queue in (asked, Queue(asked, Nothing)):
        with pytest.raises(UnknownQueue, match=f"no queue is named '{asked}'") as refused:
            catalog.get(queue)
        assert refused.value.hint == hint
        assert refused.value.exit_code == 2


def test_a_disabled_queue_is_said_to_be_disabled_and_an_empty_catalog_to_be_empty(two: Any) -> None:
    with pytest.raises(UnknownQueue) as refused:
        build(two, disabled=("corral-emails",)).get("emails")
    assert refused.value.hint == "CORRAL_DISABLED_PLUGINS disables it"
    with pytest.raises(UnknownQueue) as refused:
        build(two, disabled=("corral-emails", "faxes")).get("letters")
    assert refused.value.hint == "no installed distribution declares a queue"


def test_another_object_of_a_queue_s_name_is_not_that_queue(two: Any) -> None:
    with pytest.raises(
        JobRefused, match=r"this queue 'emails' is not the one that corral-emails 1\.0 declares"
    ):
        build(two).get(Queue("emails", Nothing))


def test_a_module_of_two_queues_goes_on_without_the_one_that_is_disabled(site: Any) -> None:
    """Neither the queue nor its processor is then undeclared."""
    site.module(
        "acme",
        "a, b = Queue('a', P), Queue('b', P)\n"
        "@hookimpl\ndef corral_queues(): return [a, b]\n"
        "async def process(job): pass\n"
        "@hookimpl\ndef corral_processors(): return [a.processed_by(process),"
        " b.processed_by(process)]\n",
    )
    site.install("acme", "a = acme", "b = acme")
    assert list(build(site, role="check", disabled=("b",)).entries) == ["a"]


def test_one_object_that_two_modules_of_a_distribution_register_is_one_queue(site: Any) -> None:
    site.module("acme", "a = Queue('a', P)\n@hookimpl\ndef corral_queues(): return [a]")
    site.module("again", "import acme\n@hookimpl\ndef corral_queues(): return [acme.a]")
    site.install("acme", "a = acme")
    again = site.folder / "acme-1.0.dist-info" / "entry_points.txt"
    again.write_text(again.read_text("utf-8") + "[corral.plugins]\nagain = again\n", "utf-8")
    assert list(build(site).entries) == ["a"]


@pytest.mark.parametrize("distribution", ["aaa", "zzz"], ids=["asked after", "asked before"])
def test_nobody_registers_the_queue_of_another(distribution: str, two: Any) -> None:
    """Whoever is asked first; and the queue keeps its own processor."""
    two.module("again", "import emails\n@hookimpl\ndef corral_queues(): return [emails.emails]")
    two.install(distribution, "again = again", group="corral.plugins")
    assert refusals(two, role="check") == [
        (
            "undeclared-queue",
            (
                f"queue 'emails' is registered by {distribution} 1.0, which has no entry point of that"
                " name"
            ),
        )
    ]


def test_two_objects_of_one_distribution_under_one_name_are_refused(site: Any) -> None:
    site.module("acme", "@hookimpl\ndef corral_queues(): return [Queue('a', P), Queue('a', P)]")
    site.install("acme", "a = acme")
    assert refusals(site) == [
        ("duplicate-queue", "queue 'a' is registered twice by acme 1.0 (wheel), as two objects")
    ]


def test_a_fork_that_kept_its_module_s_name_is_one_problem(site: Any) -> None:
    site.module("emails", "@hookimpl\ndef corral_queues(): return [Queue('emails', P)]")
    site.install("corral-emails", "emails = emails")
    site.install("acme-mail", "emails = emails")
    (problem,) = refusals(site)
    assert problem[0] == "duplicate-queue"
    assert list(build(site, disabled=("corral-emails",)).entries) == ["emails"]


def test_who_declares_a_queue_processes_it(two: Any) -> None:
    """`corral check` must not find a processor that a worker would not ask for."""
    two.module(
        "acme",
        "import emails\nasync def process(job): pass\n"
        "@hookimpl\ndef corral_processors(): return [emails.emails.processed_by(process)]",
    )
    two.install("acme", "acme = acme", group="corral.plugins")
    ((code, message),) = refusals(two, role="check")
    assert code == "undeclared-processor"
    assert message == (
        "the processor that acme 1.0 has for queue 'emails' is for a queue of corral-emails 1.0:"
        " who declares a queue"
        " processes it"
    )


def test_a_processor_of_an_undeclared_queue_is_the_same_fault_and_not_a_second(site: Any) -> None:
    site.module("acme", BOTH.format(name="secret").replace("import secret_processor", "pass"))
    site.install("acme", "acme = acme", group="corral.plugins")
    assert [code for code, _ in refusals(site, role="check")] == ["undeclared-queue"]


def test_what_follows_from_a_faulty_module_is_not_held_against_it_as_well(site: Any) -> None:
    site.module("acme", "@hookimpl\ndef corral_queus(): return []")
    site.install("acme", "a = acme", "b = acme")
    assert [code for code, _ in refusals(site, role="check")] == ["unknown-hook"]


def test_a_processor_that_could_not_be_asked_for_is_not_missing_as_well(site: Any) -> None:
    site.module("acme", BOTH.format(name="a"))
    site.install("acme", "a = acme")
    assert [code for code, _ in refusals(site, role="worker")] == ["hook-raised"]


def test_a_plugin_without_hooks_is_reported_as_without_effect(site: Any) -> None:
    site.module("acme", "def corral_job_ended(job): pass")
    site.install("acme", "audit = acme", group="corral.plugins")
    assert refusals(site) == [
        ("nothing-registered", "plugin 'audit' (acme 1.0) implements no hook")
    ]


def test_a_process_may_build_twice_of_what_it_loaded_once(two: Any) -> None:
    two.install("acme", "letters = acme_missing")
    two.module("zeta", "@hookimpl\ndef corral_queues(): return []")
    two.install("zeta", "Z = zeta")
    plugins = two.load()
    for _ in range(2):
        with pytest.raises(CatalogError) as refused:
            Catalog.build(plugins, role="check", lock=None)
        assert [problem.code for problem in refused.value.problems] == [
            "import-error",
            "bad-name",
            "nothing-registered",
        ]


class Callable:
    async def __call__(self, job: Job[Nothing]) -> None: ...


async def process(job: Job[Nothing], extra: int = 0) -> None: ...


def blocking(job: Job[Nothing], extra: int = 0) -> None: ...


@pytest.mark.parametrize(
    "function", [process, partial(process, extra=1), Callable(), partial(Callable())]
)
def test_whatever_awaits_runs_on_the_loop(function: Any) -> None:
    assert Queue("a", Nothing).processed_by(function).is_async


@pytest.mark.parametrize(
    "function", [blocking, partial(blocking, extra=1), lambda job: None, print]
)
def test_and_everything_else_on_a_thread(function: Any) -> None:
    assert not Queue("a", Nothing).processed_by(function).is_async


def test_a_catalog_loads_no_store_no_logs_no_terminal_and_no_cron() -> None:
    program = (
        "import json, sys, corral.catalog, corral.catalog.record;"
        "print(json.dumps(sorted(sys.modules)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=60, capture_output=True, text=True
    )
    loaded = set(json.loads(ended.stdout))
    assert "corral.plugins" in loaded
    assert not loaded & {
        "redis",
        "structlog",
        "rich",
        "cronsim",
        "corral.store",
        "corral.settings",
        "pydantic_settings",
    }


def test_what_is_on_pythonpath_is_installed(site: Any, two: Any, tmp_path: Path) -> None:
    """As a user starts it: nothing is handed over but the environment."""
    program = (
        "from corral.plugins import Plugins; from corral.catalog import Catalog\n"
        "print([str(entry.provider) for entry in Catalog.build(Plugins.load())])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site.folder)},
    )
    assert "corral-faxes 1.0" in ended.stdout
