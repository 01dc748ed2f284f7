"""Offers hooks, and none is marked as one."""

from __future__ import annotations

from types import SimpleNamespace

from corral import hookimpl


@hookimpl
def corral_hookspecs() -> list[object]:
    return [SimpleNamespace()]
