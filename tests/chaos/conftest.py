"""What these tests share with those of `tests/interop`."""

from __future__ import annotations

from chaos.fixtures import at_length, figure, kills, restarts, scene, scenes, site, stage

__all__ = ["at_length", "figure", "kills", "restarts", "scene", "scenes", "site", "stage"]
