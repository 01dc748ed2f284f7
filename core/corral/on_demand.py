"""`on_demand`: a package that loads its modules when their names are first used.

A process loads only what it uses: `corral --help` does not load pydantic, and a producer does not
load the worker.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # not imported: `typing` would be loaded before signals are handled
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["on_demand"]


def on_demand(
    package: str, names: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package (PEP 562).

    Type checkers do not understand them: the package imports the same names below `TYPE_CHECKING`.

    Args:
        package: The package's `__name__`.
        names: By module of the package, the names that it defines, separated by blanks. None of
            the names is also a module's.
    """
    module_of = {
        name: f"{package}.{module}" for module, defined in names.items() for name in defined.split()
    }

    def load(name: str) -> object:
        """Load the module of a name that is used for the first time."""
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = import_module(module_of[name])
        except Exception as error:
            # With its first model, pydantic reads the entry points of everything that is installed,
            # and fails with another package's broken file. It does so once, and goes on without
            # plugins of its own; `corral check` names the file.
            if not _failed_in_metadata(error):
                raise
            module = import_module(module_of[name])
        value = getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        """All names, loaded or not, for completion."""
        return sorted({*vars(sys.modules[package]), *module_of})

    return load, list_names


def _failed_in_metadata(error: BaseException) -> bool:
    """Whether an error was raised while metadata of installed distributions was read."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").startswith("importlib.metadata"):
            return True
        frame = frame.tb_next
    return False
