"""`corral.lock`: what a team has agreed to run, one table per queue; written by `corral lock`, reviewed like code.

It knows the file and how to compare it, and nothing of how a catalog comes to be.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from corral.errors import ConfigurationError
from corral.plugins.entry_points import Provider
from corral.plugins.report import Report

__all__ = ["LOCK_FILE", "Locked", "check_complete", "check_lock", "read_lock", "write_lock"]

LOCK_FILE: Final = Path("corral.lock")
"""In the working directory: the file belongs to the application that is started there."""

HEADER: Final = "# The queues that may run here. Written by `corral lock`; review every change as you review code.\n"


@dataclass(frozen=True, slots=True)
class Locked:
    """What is agreed on for one queue.

    Attributes:
        distribution: Who provides it.
        version: In which version.
        fingerprint: The digest of its payload's JSON schema.
    """

    distribution: str
    version: str
    fingerprint: str


def read_lock(path: Path = LOCK_FILE) -> dict[str, Locked] | None:
    """The agreement, by queue; None where there is no such file.

    Raises:
        ConfigurationError: The file is there, and cannot be read or is none of ours.
    """
    try:
        text = path.read_text("utf-8")
        import tomllib  # noqa: PLC0415  # few processes have a lock file

        queues = tomllib.loads(text).get("queues", {})
        return {name: Locked(**fields) for name, fields in queues.items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:  # no TOML, or not of our shape
        raise ConfigurationError(
            f"the lock file {str(path)!r} cannot be read: {error}", hint="restore it, or write it anew: corral lock"
        ) from error


def write_lock(path: Path, queues: Mapping[str, Locked]) -> None:
    """Write the agreement: the same queues give the same bytes.

    Args:
        path: Where to; what is there is replaced.
        queues: What to agree on: `catalog.agreement()`.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    tables = [
        f"\n[queues.{name}]\n"
        # a JSON string without escaped surrogates is a TOML string
        + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in asdict(locked).items())
        for name, locked in sorted(queues.items())
    ]
    try:
        path.write_text(HEADER + "".join(tables), "utf-8")
    except OSError as error:
        raise ConfigurationError(f"the lock file {str(path)!r} cannot be written: {error.strerror}") from error


def check_lock(locked: Mapping[str, Locked], installed: Mapping[str, Locked], report: Report) -> None:
    """Compare what is installed with what was agreed on.

    Args:
        locked: The agreement.
        installed: What was found.
        report: Gets every queue that is not in the agreement, or differs from it.
    """
    for name, here in sorted(installed.items()):
        provider = Provider(here.distribution, here.version, "")
        agreed = locked.get(name)
        if agreed is None:
            hint = f"agree to it: corral lock; or uninstall {provider.distribution}"
            report.add("not-locked", f"queue {name!r} of {provider} is not in the lock file", [provider], hint=hint)
        elif agreed != here:
            differing = ", ".join(
                f"{field} {getattr(agreed, field)!r} is locked and {getattr(here, field)!r} is installed"
                for field in Locked.__dataclass_fields__
                if getattr(agreed, field) != getattr(here, field)
            )
            hint = "install what was agreed on, or agree to the change: corral lock"
            message = f"queue {name!r} of {provider} differs from the lock file: {differing}"
            report.add("lock-differs", message, [provider], hint=hint)


def check_complete(locked: Mapping[str, Locked], claimed: Collection[str], report: Report) -> None:
    """Find what was agreed on and is not there.

    Args:
        locked: The agreement.
        claimed: The names of all queues that are installed, disabled ones too: disabling is a decision, not a loss.
        report: Gets every queue that is missing.
    """
    for name in sorted(locked.keys() - set(claimed)):
        agreed = locked[name]
        hint = f"install {agreed.distribution}, or agree to its removal: corral lock"
        report.add("locked-missing", f"queue {name!r} is in the lock file and not installed", hint=hint)
