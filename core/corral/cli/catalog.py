"""`corral check`, `corral lock`, `corral plugins`: what is installed."""

from __future__ import annotations

import json
from pathlib import Path

import click

from corral.cli.table import show_table

__all__ = ["check", "lock", "plugins"]
