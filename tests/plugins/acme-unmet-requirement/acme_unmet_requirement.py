"""Is for a later release of Corral, and must not be imported."""

from __future__ import annotations

raise AssertionError("imported")
