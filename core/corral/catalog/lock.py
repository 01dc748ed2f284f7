"""The lock file `corral.lock`: the queues and plugins that a team allows to run.

`corral lock` writes it, and it is reviewed like code. Names are compared before any plugin is
imported, versions and payloads after. This module knows the file and how to compare it, and not how
a catalog is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from corral.errors import ConfigurationError
from corral.plugins.entry_points import (
    APPLICATION,
    BUILT_IN,
    QUEUES,
    PluginEntryPoint,
    Provider,
    canonical_name,
    is_patch,
)
from corral.plugins.report import Code, Report

__all__ = [
    "LOCK_FILE",
    "Lock",
    "LockedQueue",
    "check_complete",
    "check_lock",
    "check_lock_names",
    "read_lock",
    "write_lock",
]

LOCK_FILE: Final = Path("corral.lock")
"""The default path, in the working directory: the file belongs to the application started there.

`CORRAL_LOCK` names another path.
"""

FORM: Final = 2
"""The version of the file's form.

The first form had no number, and did not list distributions without a queue.
"""

HEADER: Final = (
    "# What may run here. Written by `corral lock`; review every change as you review code.\n"
)
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class LockedQueue:
    """A queue in the lock file.

    Attributes:
        distribution: The distribution that provides it.
        version: That distribution's version.
        fingerprint: The digest of its payload's JSON schema.
    """

    distribution: str
    version: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The content of a lock file.

    Attributes:
        queues: The allowed queues by name.
        plugins: The versions of allowed distributions that declare no queue, by canonical name.
            None if the file has the first form, which allows all of them.
    """

    queues: Mapping[str, LockedQueue]
    plugins: Mapping[str, str] | None

    @property
    def distributions(self) -> Mapping[str, str]:
        """The version of every allowed distribution, by canonical name."""
        return {
            canonical_name(each.distribution): each.version for each in self.queues.values()
        } | dict(self.plugins or {})


def read_lock(path: Path = LOCK_FILE) -> Lock | None:
    """Read a lock file; None if there is no file at this path.

    Raises:
        ConfigurationError: The file exists, and cannot be read or is no lock file.
    """
    try:
        text = path.read_text("utf-8")
        import tomllib  # noqa: PLC0415  # few processes have a lock file

        return _parse_lock(tomllib.loads(text))
    except FileNotFoundError:
        return None
    # no TOML, or TOML of another structure
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigurationError(
            f"the lock file {str(path)!r} cannot be read: {error}",
            hint="restore it, or write it anew: corral lock",
        ) from error


def _parse_lock(tables: dict[str, Any]) -> Lock:
    form = tables.pop("form", 1)
    queues, plugins = tables.pop("queues", {}), tables.pop("plugins", {})
    if form not in {1, FORM}:
        raise ValueError(f"it is of the form {form!r}, and this release of Corral knows {FORM}")
    if tables:
        raise ValueError(f"it has {', '.join(map(repr, tables))}, which means nothing")
    locked = {name: LockedQueue(**_texts(fields)) for name, fields in queues.items()}
    versions = {canonical_name(name): _texts(fields)["version"] for name, fields in plugins.items()}
    return Lock(locked, None if form == 1 else versions)


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    """The fields of a table, if all of them are texts; else raises ValueError."""
    if not all(isinstance(value, str) for value in fields.values()):
        raise ValueError(f"{fields!r} are not all texts")
    return {name: str(value) for name, value in fields.items()}


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file. The same queues and plugins give the same bytes.

    Args:
        path: Where to write it; an existing file is replaced.
        lock: The content: `catalog.lock_entries()`.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    tables = [
        _table("queues", name, asdict(locked)) for name, locked in sorted(lock.queues.items())
    ]
    tables += [
        _table("plugins", name, {"version": version})
        for name, version in sorted((lock.plugins or {}).items())
    ]
    try:
        path.write_text(f"{HEADER}form = {FORM}\n{''.join(tables)}", "utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"the lock file {str(path)!r} cannot be written: {error.strerror}"
        ) from error


def _table(group: str, name: str, fields: Mapping[str, str]) -> str:
    # a JSON string without escaped surrogates is a TOML string
    text = partial(json.dumps, ensure_ascii=False)
    key = name if BARE_KEY.fullmatch(name) else text(name)
    return f"\n[{group}.{key}]\n" + "".join(
        f"{field} = {text(value)}\n" for field, value in fields.items()
    )


def check_lock_names(lock: Lock, entry_points: Iterable[PluginEntryPoint], report: Report) -> None:
    """Compare names with the lock file, before any plugin is imported.

    Args:
        lock: The content of the lock file.
        entry_points: The entry points that are about to be imported. The application and the core's
            own plugins are not subject to the lock file.
        report: Gets every queue and plugin that is not in the lock file; its entry points become
            `faulty`.
    """
    for each in entry_points:
        if each.group == APPLICATION or each.provider.origin == BUILT_IN:
            continue
        refusal = _name_refusal(lock, each)
        if refusal is not None:
            code, message = refusal
            hint = f"agree to it: corral lock; or uninstall {each.provider.distribution}"
            report.add(code, message, [each.provider], hint=hint)
            report.faulty.add(each)


def _name_refusal(lock: Lock, entry_point: PluginEntryPoint) -> tuple[Code, str] | None:
    """Why the lock file refuses an entry point: a problem's code and message; else None."""
    name, provider = entry_point.name, entry_point.provider
    distribution = canonical_name(provider.distribution)
    if entry_point.group != QUEUES:
        if lock.plugins is None or distribution in lock.distributions:
            return None
        return "not-locked", f"plugin {name!r} of {provider} is not in the lock file"
    locked = lock.queues.get(name)
    if locked is None:
        return "not-locked", f"queue {name!r} of {provider} is not in the lock file"
    if canonical_name(locked.distribution) == distribution:
        return None
    difference = _difference("distribution", locked.distribution, provider.distribution)
    return "lock-differs", f"queue {name!r} of {provider} differs from the lock file: {difference}"


def check_lock(
    lock: Lock,
    queues: Mapping[str, tuple[Provider, str]],
    plugins: Iterable[Provider],
    report: Report,
    *,
    patches: bool = False,
) -> list[str]:
    """Compare versions and payloads with the lock file.

    Args:
        lock: The content of the lock file.
        queues: The provider and the fingerprint of each installed queue whose name is locked.
        plugins: The distributions that implement hooks and declare no queue.
        report: Gets the differences.
        patches: Whether patch releases with the same payloads are allowed.

    Returns:
        Warnings, a sentence each.
    """
    hint = "install what was agreed on, or agree to the change: corral lock"
    patched: dict[Provider, str] = {}
    for name, (provider, fingerprint) in sorted(queues.items()):
        locked = lock.queues[name]
        version = _difference("version", locked.version, provider.version)
        shape = _difference("fingerprint", locked.fingerprint, fingerprint)
        if not shape and is_patch(locked.version, provider.version):
            patched[provider] = (
                f"{provider} is a patch release of {locked.version}, which is locked, with the"
                " same payloads"
            )
        elif differences := ", ".join(filter(None, (version, shape))):
            message = f"queue {name!r} of {provider} differs from the lock file: {differences}"
            report.add("lock-differs", message, [provider], hint=hint)
    for provider in plugins:
        version = lock.distributions.get(canonical_name(provider.distribution), provider.version)
        if is_patch(version, provider.version):
            patched[provider] = f"{provider} is a patch release of {version}, which is locked"
        elif difference := _difference("version", version, provider.version):
            message = f"plugin {provider} differs from the lock file: {difference}"
            report.add("lock-differs", message, [provider], hint=hint)
    if patches:
        return [*patched.values()]
    for provider, text in patched.items():
        hint = "agree to it: corral lock; or CORRAL_LOCK_PATCHES=allow"
        report.add("patch-release", text, [provider], hint=hint)
    return []


def check_complete(lock: Lock, entry_points: Collection[PluginEntryPoint], report: Report) -> None:
    """Find what is in the lock file and not installed.

    Args:
        lock: The content of the lock file.
        entry_points: All installed entry points, disabled ones included: disabling a plugin is a
            decision, and does not make it missing.
        report: Gets every missing queue and distribution.
    """
    installed = {each.name for each in entry_points if each.group == QUEUES}
    for name in sorted(lock.queues.keys() - installed):
        hint = f"install {lock.queues[name].distribution}, or agree to its removal: corral lock"
        message = f"queue {name!r} is in the lock file and not installed"
        report.add("locked-missing", message, hint=hint)
    distributions = {canonical_name(each.provider.distribution) for each in entry_points}
    for name in sorted((lock.plugins or {}).keys() - distributions):
        hint = "install it, or agree to its removal: corral lock"
        message = f"the plugin {name!r} is in the lock file and not installed"
        report.add("locked-missing", message, hint=hint)


def _difference(field: str, locked: str, installed: str) -> str:
    """How a locked value and an installed one differ; "" if they are equal."""
    if locked == installed:
        return ""
    return f"{field} {locked!r} is locked and {installed!r} is installed"
