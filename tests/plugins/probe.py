"""Builds catalogs on request: each in a process of its own, forked from one that has paid for its
imports.

Reads one JSON object per line, answers with one. Only the distributions of the request's `path`
count as installed, whatever else this environment has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from corral.app.installed import read_configured_lock
from corral.catalog import Catalog
from corral.catalog.lock import check_lock_names
from corral.errors import CatalogError, CorralError
from corral.plugins import Plugins, read_entry_points
from corral.settings import Settings

SECONDS = 20
"""After these a request's process is killed; it needs a few hundredths of one."""


def answer(
    *, path: list[str], role: Any, serves: Any, lock: Any, application: Any, disabled: Any
) -> dict[str, Any]:
    sys.path[:0] = path
    result: dict[str, Any] = {"warnings": (), "queues": [], "problems": [], "traceback": ""}
    try:
        agreed = read_configured_lock(Settings(lock=Path(lock))) if lock else None
        check = partial(check_lock_names, agreed) if agreed else None
        plugins = Plugins.load(
            read_entry_points(path), application=application, disabled=disabled, check=check
        )
        result["warnings"] = plugins.warnings
        catalog = Catalog.build(plugins, role=role, serves=serves, lock=agreed)
    except CatalogError as error:
        result |= {
            "error": str(error),
            "problems": [vars_of(problem) for problem in error.problems],
        }
        result["traceback"] = "".join(traceback.format_exception(error))
    except CorralError as error:
        result["error"] = f"{type(error).__name__}: {error}; {error.hint}"
    else:
        result["queues"] = [
            [entry.queue.name, entry.provider.label, entry.processor is not None]
            for entry in catalog
        ]
        result["locked"] = catalog.is_locked
    result["modules"] = sorted(
        name for name in sys.modules if name.startswith(("corral", "acme", "structlog"))
    )
    return result


def vars_of(problem: Any) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in ("code", "message", "hint", "providers")}


def print_result(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)
            print_result(answer(**json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print_result({"died": status})


if __name__ == "__main__":
    main()
