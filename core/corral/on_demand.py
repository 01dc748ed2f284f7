"""`on_demand`: a package whose names load their modules when they are first asked for.

It keeps a process from loading what it does not use: `corral --help` no pydantic, a producer no
worker.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # as checkers read it: the program handles no signal before this is loaded
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["on_demand"]


def on_demand(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package (PEP 562).

    Type checkers do not see them: the package imports the same names below `TYPE_CHECKING`.

    Args:
        package: The package's `__name__`.
        names: By module of the package, the names that it defines, separated by blanks. No name is
        also a module's.
    """
    module_of = {
        name: f"{package}.{module}" for module, defined in names.items() for name in defined.split()
    }

    def load(name: str) -> object:
        """Load the module of a name that was not asked for before."""
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def offered() -> list[str]:
        """The whole surface, loaded or not: what completion offers."""
        return sorted({*vars(sys.modules[package]), *module_of})

    return load, offered
