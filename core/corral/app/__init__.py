"""The composition root: it reads the settings, loads the plugins, and builds the rest of them.

Modules below it are handed what they need. `connect` is for producers; the other functions are what
the commands run. A function's module is loaded when it is first asked for.
"""

from typing import TYPE_CHECKING

from corral.on_demand import on_demand

if TYPE_CHECKING:
    from corral.app.installed import (
        Installed,
        check_installed,
        log_lock,
        read_installed,
        read_plugins,
        read_settings,
    )
    from corral.app.operating import (
        count_jobs,
        enqueue_once,
        find_orphans,
        open_inspector,
        operate,
    )
    from corral.app.parent_process import run_processes
    from corral.app.producing import connect, connect_blocking
    from corral.app.scheduling import (
        list_schedules,
        prune_schedules,
        remove_schedule,
        restore_schedule,
    )
    from corral.app.sql_database import create_database, relay_outbox
    from corral.app.working import run_worker, tune_garbage_collector

__all__ = [
    "Installed",
    "check_installed",
    "connect",
    "connect_blocking",
    "count_jobs",
    "create_database",
    "enqueue_once",
    "find_orphans",
    "list_schedules",
    "log_lock",
    "open_inspector",
    "operate",
    "prune_schedules",
    "read_installed",
    "read_plugins",
    "read_settings",
    "relay_outbox",
    "remove_schedule",
    "restore_schedule",
    "run_processes",
    "run_worker",
    "tune_garbage_collector",
]

if not TYPE_CHECKING:  # a checker that saw this would accept any name
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "sql_database": "create_database relay_outbox",
            "installed": "Installed check_installed log_lock read_installed read_plugins "
            "read_settings",
            "operating": "count_jobs enqueue_once find_orphans open_inspector operate",
            "parent_process": "run_processes",
            "producing": "connect connect_blocking",
            "scheduling": "list_schedules prune_schedules remove_schedule restore_schedule",
            "working": "tune_garbage_collector run_worker",
        },
    )
