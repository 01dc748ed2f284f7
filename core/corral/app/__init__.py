"""The composition root: settings, then plugins, then the catalog, then the store.

Everything else is handed its parts.

`connect` is a producer's front door; the rest is what the commands do. A command loads its own
part.
"""

from typing import TYPE_CHECKING

from corral.on_demand import on_demand

if TYPE_CHECKING:
    from corral.app.databases import create_database, relay_outbox
    from corral.app.installed import (
        Installed,
        log_lock,
        read_installed,
        read_plugins,
        read_settings,
    )
    from corral.app.operating import count_jobs, enqueue_once, operate
    from corral.app.producing import connect, connect_blocking
    from corral.app.scheduling import (
        list_schedules,
        prune_schedules,
        remove_schedule,
        restore_schedule,
    )
    from corral.app.worker_processes import run_processes
    from corral.app.working import calm_collector, run_worker

__all__ = [
    "Installed",
    "calm_collector",
    "connect",
    "connect_blocking",
    "count_jobs",
    "create_database",
    "enqueue_once",
    "list_schedules",
    "log_lock",
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
]

if not TYPE_CHECKING:  # a checker that saw this would accept any name
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "databases": "create_database relay_outbox",
            "installed": "Installed log_lock read_installed read_plugins read_settings",
            "operating": "count_jobs enqueue_once operate",
            "worker_processes": "run_processes",
            "producing": "connect connect_blocking",
            "scheduling": "list_schedules prune_schedules remove_schedule restore_schedule",
            "working": "calm_collector run_worker",
        },
    )
