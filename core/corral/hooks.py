"""Calling the hooks that a plugin offers: one implementation after the other, awaited, and blamed
by name.

`deps.hook.acme_find_user(user_id=…)` is pluggy's own call. It calls everybody before anything is
awaited, so that an implementation that raises leaves the others' coroutines behind, and says not
whose it was. These two do not.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pluggy import HookCaller

__all__ = ["Answer", "HookRaised", "all_answers", "first_answer"]


class HookRaised(Exception):
    """An implementation of a plugin's hook raised; `__cause__` is what it raised.

    Attributes:
        hook: The hook's name.
        provider: Who implements it: a module's name.
    """

    def __init__(self, hook: str, provider: str, error: Exception) -> None:
        super().__init__(f"{provider} raised in {hook}: {type(error).__name__}: {error}")
        self.hook = hook
        self.provider = provider


@dataclass(frozen=True, slots=True)
class Answer:
    """What one implementation returned.

    Attributes:
        provider: Who implements the hook: a module's name.
        value: What it returned, or what that came to when it was awaited. It may be None.
    """

    provider: str
    value: Any


async def first_answer(hook: HookCaller, **arguments: object) -> Any:
    """Ask for one answer: the application first, whoever is marked `trylast` last.

    Args:
        hook: What `deps.hook` calls by its name: `deps.hook.acme_find_user`.
        arguments: The hook's arguments.

    Returns:
        The first answer that is not None, also after it was awaited; None where nobody has one.

    Raises:
        HookRaised: An implementation raised, and nobody was asked after it.
    """
    async with aclosing(
        _asked(hook, arguments)
    ) as answers:  # left early, it would be closed by a task of its own
        async for answer in answers:
            if answer.value is not None:
                return answer.value
    return None


async def all_answers(hook: HookCaller, **arguments: object) -> list[Answer]:
    """Ask everybody, each when the one before has answered.

    Args:
        hook: As `first_answer`.
        arguments: As `first_answer`.

    Returns:
        One answer for each implementation, in the order in which they were called.

    Raises:
        HookRaised: An implementation raised, and nobody was asked after it.
    """
    return [answer async for answer in _asked(hook, arguments)]


async def _asked(hook: HookCaller, arguments: dict[str, object]) -> AsyncGenerator[Answer, None]:
    for made in reversed(hook.get_hookimpls()):  # the order in which pluggy would call them
        if made.wrapper or made.hookwrapper:
            continue  # it would wrap one call of all of them, and there is none
        try:
            value = made.function(*[arguments[name] for name in made.argnames])
            if inspect.isawaitable(value):
                value = await value
        except Exception as error:  # a plugin may raise anything, and so may what it awaits
            raise HookRaised(hook.name, made.plugin_name, error) from error
        yield Answer(made.plugin_name, value)
