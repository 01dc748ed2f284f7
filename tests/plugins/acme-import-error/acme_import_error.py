"""Needs what is not installed."""

import acme_missing_renderer  # noqa: F401 - the point
