"""A plugin's own hooks: asked one after the other, awaited, and blamed by name."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from corral.hooks import Answer, HookRaised, all_answers, first_answer
from corral.hookspecs import hookimpl, hookspec

pytestmark = pytest.mark.asyncio


@hookspec
def acme_visit(name: str, number: int) -> object: ...


class Doors:
    """Implementations of `acme_visit` in the order of their registration, and what was called."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.manager = pluggy.PluginManager("corral")
        self.manager.add_hookspecs(sys.modules[__name__])

    def add(self, provider: str, function: Callable[..., Any], **options: Any) -> None:
        self.manager.register(SimpleNamespace(acme_visit=hookimpl(**options)(function)), provider)

    @property
    def hook(self) -> Any:
        return self.manager.hook.acme_visit


@pytest.fixture
def doors() -> Doors:
    return Doors()


async def test_who_was_registered_last_is_asked_first_and_a_default_last(doors) -> None:
    doors.add("application", lambda name: f"{name} of the application")
    doors.add("default", lambda: "default", trylast=True)
    doors.add("plugin", lambda number: number + 1)
    assert await all_answers(doors.hook, name="ada", number=1) == [
        Answer("plugin", 2),
        Answer("application", "ada of the application"),
        Answer("default", "default"),
    ]
    assert await first_answer(doors.hook, name="ada", number=1) == 2


async def test_what_can_be_awaited_is_awaited_and_none_leaves_it_to_the_next(doors) -> None:
    async def knows_nobody(name: str) -> None:
        return None

    async def knows(name: str) -> str:
        return name.title()

    doors.add("last", knows)
    doors.add("first", knows_nobody)
    assert await first_answer(doors.hook, name="ada", number=1) == "Ada"
    assert await all_answers(doors.hook, name="ada", number=1) == [
        Answer("first", None),
        Answer("last", "Ada"),
    ]


async def test_an_answer_leaves_no_task_behind(doors) -> None:
    doors.add("behind", lambda: 2)
    doors.add("plain", lambda: 1)
    loop, begun = asyncio.get_running_loop(), []

    def begin(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        begun.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(begin)
    try:
        assert await first_answer(doors.hook, name="ada", number=1) == 1
        await asyncio.sleep(0)
    finally:
        loop.set_task_factory(None)
    assert begun == []


async def test_nobody_has_an_answer(doors) -> None:
    assert await first_answer(doors.hook, name="ada", number=1) is None
    assert await all_answers(doors.hook, name="ada", number=1) == []


@pytest.mark.parametrize("ask", [all_answers, first_answer])
@pytest.mark.parametrize("is_async", [False, True])
async def test_who_raises_is_named_and_nobody_after_it_is_called(doors, ask, is_async) -> None:
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
        await ask(doors.hook, name="ada", number=1)
    assert doors.called == ["before"]
    assert (raised.value.hook, raised.value.provider) == ("acme_visit", "acme.broken")
    assert isinstance(raised.value.__cause__, KeyError)


async def test_a_wrapper_has_nothing_to_wrap(doors) -> None:
    def wrapped():
        doors.called.append("wrapper")
        return (yield)

    doors.add("wrapper", wrapped, wrapper=True)
    doors.add("plain", lambda: 1)
    assert await first_answer(doors.hook, name="ada", number=1) == 1
    assert doors.called == []
