"""`Deps`: resources that processors share, and the hooks that plugins offer and others answer."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from corral import (
    Answer,
    Deps,
    HookRaised,
    Payload,
    PluginCounter,
    Queue,
    hookimpl,
    hookspec,
    testing,
)
from corral.plugins import Plugins

pytestmark = pytest.mark.asyncio

SECONDS = 10


class Note(Payload):
    text: str = ""


@hookspec
def acme_visit(name: str, number: int = 1) -> Any:
    """Say something about a visitor."""


class Doors:
    """Implementations of `acme_visit` in the order of their registration, and what was called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        offer = hookimpl(lambda: [sys.modules[__name__]])
        self.modules: dict[str, Any] = {"acme": SimpleNamespace(corral_hookspecs=offer)}

    def add(self, provider: str, function: Callable[..., Any], **options: Any) -> None:
        self.modules[provider] = SimpleNamespace(acme_visit=hookimpl(**options)(function))

    @property
    def deps(self) -> Deps:
        plugins = Plugins.of_modules(self.modules)
        return Deps(testing.RecordingJobScheduler(), plugins, AsyncExitStack())


@pytest.fixture
def doors() -> Doors:
    return Doors()


class TestHooks:
    async def test_who_was_registered_last_is_asked_first_and_a_default_last(self, doors) -> None:
        doors.add("application", lambda name: f"{name} of the application")
        doors.add("default", lambda: "default", trylast=True)
        doors.add("plugin", lambda number: number + 1)
        assert await doors.deps.ask_all(acme_visit, name="ada", number=1) == [
            Answer("plugin", 2),
            Answer("application", "ada of the application"),
            Answer("default", "default"),
        ]
        assert await doors.deps.ask_first(acme_visit, name="ada", number=1) == 2
        assert doors.deps.implementers(acme_visit) == ("plugin", "application", "default")

    async def test_awaitables_are_awaited_and_none_leaves_it_to_the_next(self, doors) -> None:
        async def knows_nobody(name: str) -> None:
            return None

        async def knows(name: str) -> str:
            return name.title()

        doors.add("last", knows)
        doors.add("first", knows_nobody)
        assert await doors.deps.ask_first(acme_visit, name="ada", number=1) == "Ada"
        assert await doors.deps.ask_all(acme_visit, name="ada", number=1) == [
            Answer("first", None),
            Answer("last", "Ada"),
        ]

    async def test_arguments_by_position_and_defaults_are_those_of_the_specification(
        self, doors
    ) -> None:
        doors.add("both", lambda number, name: (name, number))
        assert await doors.deps.ask_first(acme_visit, "ada") == ("ada", 1)
        assert await doors.deps.ask_first(acme_visit, "ada", number=2) == ("ada", 2)
        with pytest.raises(TypeError, match="'nome'"):
            await doors.deps.ask_first(acme_visit, "ada", nome=2)
        with pytest.raises(TypeError, match="'name'"):
            await doors.deps.ask_all(acme_visit)

    async def test_an_answer_leaves_no_task_behind(self, doors) -> None:
        doors.add("behind", lambda: 2)
        doors.add("plain", lambda: 1)
        loop, begun = asyncio.get_running_loop(), []

        def begin(
            loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
        ) -> asyncio.Task[Any]:
            begun.append(coroutine)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(begin)
        try:
            assert await doors.deps.ask_first(acme_visit, name="ada", number=1) == 1
            await asyncio.sleep(0)
        finally:
            loop.set_task_factory(None)
        assert begun == []

    async def test_without_an_implementation_there_is_no_answer(self, doors) -> None:
        assert await doors.deps.ask_first(acme_visit, name="ada", number=1) is None
        assert await doors.deps.ask_all(acme_visit, name="ada", number=1) == []
        assert doors.deps.implementers(acme_visit) == ()

    @pytest.mark.parametrize("ask", ["ask_all", "ask_first"])
    async def test_a_hook_that_no_plugin_offers_cannot_be_asked(self, doors, ask) -> None:
        del doors.modules["acme"]
        with pytest.raises(LookupError, match="no loaded plugin offers the hook 'acme_visit': "):
            await getattr(doors.deps, ask)(acme_visit, name="ada")

    @pytest.mark.parametrize("ask", ["ask_all", "ask_first"])
    @pytest.mark.parametrize("is_async", [False, True])
    async def test_one_that_raises_is_named_and_none_after_it_is_called(
        self, doors, ask, is_async
    ) -> None:
        def breaks(name: str) -> None:
            raise KeyError(name)

        async def breaks_later(name: str) -> None:
            raise KeyError(name)

        async def never() -> None:
            doors.called.append("never")

        doors.add("behind", never)
        doors.add("acme.broken", breaks_later if is_async else breaks)
        doors.add("before", lambda: doors.called.append("before"))
        with pytest.raises(
            HookRaised, match=r"^acme.broken raised in acme_visit: KeyError: 'ada'$"
        ) as raised:
            await getattr(doors.deps, ask)(acme_visit, name="ada", number=1)
        assert doors.called == ["before"]
        assert (raised.value.hook, raised.value.provider) == ("acme_visit", "acme.broken")
        assert isinstance(raised.value.__cause__, KeyError)


class Pool:
    """A resource that opens when `gate` is set; `opened` counts how often that was tried."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.gate = asyncio.Event()
        self.opened = 0
        self.fault = fault

    @asynccontextmanager
    async def open(self, deps: Deps) -> AsyncIterator[str]:
        self.opened += 1
        number = self.opened
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        yield f"pool {number}"


class TestEnter:
    @pytest_asyncio.fixture
    async def deps(self) -> AsyncIterator[Deps]:
        async with asyncio.timeout(SECONDS), AsyncExitStack() as resources:
            yield Deps(testing.RecordingJobScheduler(), Plugins.of_modules({}), resources)

    async def started(self, *callers: asyncio.Task[Any], pool: Pool) -> None:
        """Let the callers run until the first opens the pool and the others wait for it."""
        for _ in range(3):
            await asyncio.sleep(0)
        assert pool.opened == 1
        assert not any(caller.done() for caller in callers)

    async def test_a_second_caller_gets_the_error_of_the_first_and_not_a_cancellation(
        self, deps: Deps
    ) -> None:
        pool = Pool(ConnectionError("no route to the database"))
        opener = pool.open
        callers = [asyncio.create_task(deps.enter(opener)) for _ in range(3)]
        await self.started(*callers, pool=pool)
        pool.gate.set()
        errors = await asyncio.gather(*callers, return_exceptions=True)
        assert errors == [pool.fault] * 3
        pool.fault = None
        assert await deps.enter(opener) == "pool 2", "the next call opens it again"

    async def test_one_whose_first_caller_is_cancelled_is_opened_by_the_next(
        self, deps: Deps
    ) -> None:
        pool = Pool()
        opener = pool.open
        first, second = (asyncio.create_task(deps.enter(opener)) for _ in range(2))
        await self.started(first, second, pool=pool)
        first.cancel()
        pool.gate.set()
        assert await second == "pool 2"
        assert first.cancelled()

    async def test_a_waiting_caller_that_is_cancelled_disturbs_no_other(self, deps: Deps) -> None:
        pool = Pool()
        opener = pool.open
        first, second, third = (asyncio.create_task(deps.enter(opener)) for _ in range(3))
        await self.started(first, second, third, pool=pool)
        second.cancel()
        await asyncio.wait([second])
        pool.gate.set()
        assert await asyncio.gather(first, third) == ["pool 1", "pool 1"]
        assert second.cancelled()

    async def test_an_error_that_a_future_cannot_hold_leaves_no_caller_waiting(
        self, deps: Deps
    ) -> None:
        gate = asyncio.Event()
        tried: list[int] = []

        class Resource:
            async def __aenter__(self) -> str:
                await gate.wait()
                return "open"

            async def __aexit__(self, *raised: object) -> None:
                pass

        def opener(deps: Deps) -> Any:
            tried.append(1)
            if len(tried) == 1:
                raise StopIteration
            return Resource()

        gate.set()
        results = await asyncio.gather(
            deps.enter(opener), deps.enter(opener), return_exceptions=True
        )
        assert isinstance(results[0], RuntimeError), "StopIteration, as a coroutine raises it"
        assert results[1] == "open"

    async def test_what_the_worker_s_owner_provides_is_not_opened(self) -> None:
        pool = Pool()
        opener = pool.open
        async with AsyncExitStack() as resources:
            jobs, plugins = testing.RecordingJobScheduler(), Plugins.of_modules({})
            deps = Deps(jobs, plugins, resources, {opener: "provided"})
            assert await deps.enter(opener) == "provided"
        assert pool.opened == 0


class TestCounters:
    @pytest_asyncio.fixture
    async def deps(self) -> AsyncIterator[Deps]:
        async with AsyncExitStack() as resources:
            yield testing.deps(resources=resources)

    def count_letters(self, deps: Deps, **changed: Any) -> PluginCounter:
        arguments: dict[str, Any] = {"label": "about", "values": ("stamp", "address"), **changed}
        name = arguments.pop("name", "acme_letters_refused_total")
        return deps.counter(name, arguments.pop("text", "Refused letters."), **arguments)

    async def test_a_counter_is_zero_from_the_start_and_grows(self, deps: Deps) -> None:
        refused = self.count_letters(deps)
        assert refused.counts == {"stamp": 0, "address": 0}
        refused.add("stamp")
        refused.add("stamp", 2)
        assert refused.counts == {"stamp": 3, "address": 0}
        assert deps.counters == {"acme_letters_refused_total": refused}

    async def test_the_same_arguments_give_the_same_counter(self, deps: Deps) -> None:
        assert self.count_letters(deps) is self.count_letters(deps, values=["address", "stamp"])

    @pytest.mark.parametrize(
        "changed", [{"text": "Others."}, {"label": "reason"}, {"values": ("stamp",)}]
    )
    async def test_other_arguments_for_its_name_are_refused(
        self, deps: Deps, changed: dict[str, Any]
    ) -> None:
        refused = self.count_letters(deps)
        with pytest.raises(ValueError, match="exists with another text, label or values"):
            self.count_letters(deps, **changed)
        assert deps.counters == {refused.name: refused}

    @pytest.mark.parametrize(
        ("changed", "complaint"),
        [
            ({"name": "acme_letters_refused"}, "is not named like acme_letters_refused_total"),
            ({"name": "Acme-letters_total"}, "is not named like"),
            ({"name": "_total"}, "is not named like"),
            ({"label": "what for"}, "is not made of a-z 0-9 _"),
            ({"label": "__name__"}, "is not made of a-z 0-9 _"),
            ({"values": ()}, "has no values of its label 'about'"),
        ],
    )
    async def test_what_cannot_be_a_metric_is_refused(
        self, deps: Deps, changed: dict[str, Any], complaint: str
    ) -> None:
        with pytest.raises(ValueError, match=complaint):
            self.count_letters(deps, **changed)
        assert deps.counters == {}

    async def test_a_value_that_was_not_named_is_no_series(self, deps: Deps) -> None:
        refused = self.count_letters(deps)
        with pytest.raises(ValueError, match=r"'ada@example\.org' is no value of 'about'"):
            refused.add("ada@example.org")
        with pytest.raises(ValueError, match="does not count -1"):
            refused.add("stamp", -1)
        assert refused.counts == {"stamp": 0, "address": 0}

    async def test_threads_lose_no_count(self, deps: Deps) -> None:
        refused = self.count_letters(deps)

        def count() -> None:
            for _ in range(2_000):
                refused.add("stamp")

        await asyncio.gather(*(asyncio.to_thread(count) for _ in range(8)))
        assert refused.counts["stamp"] == 16_000


async def test_a_queue_has_one_trouble_until_it_is_cleared() -> None:
    letters, parcels = Queue("letters", Note), Queue("parcels", Note)
    deps = testing.deps()
    deps.report_trouble(letters, "the post office is closed")
    deps.report_trouble(letters, "the post office is on fire")
    deps.report_trouble(parcels, "no van")
    assert deps.troubles == {
        ("letters", "reported"): "the post office is on fire",
        ("parcels", "reported"): "no van",
    }
    deps.clear_trouble(letters)
    deps.clear_trouble(letters)
    assert deps.troubles == {("parcels", "reported"): "no van"}
