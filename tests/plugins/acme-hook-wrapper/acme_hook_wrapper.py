"""Wraps a hook of the core."""

from __future__ import annotations

from collections.abc import Iterator

from corral import hookimpl


@hookimpl(wrapper=True)
def corral_queues() -> Iterator[None]:
    return (yield)
