"""`corral.lock`: what a team has agreed to run: its queues, and the distributions that have hooks
and no queue.

Written by `corral lock`, reviewed like code. Names are compared before any plugin is imported,
versions and payloads after. It knows the file and how to compare it, and nothing of how a catalog
comes to be.
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
    Claim,
    Provider,
    canonical,
    is_patch,
)
from corral.plugins.report import Report

__all__ = [
    "LOCK_FILE",
    "Lock",
    "Locked",
    "check_complete",
    "check_lock",
    "check_lock_names",
    "read_lock",
    "write_lock",
]

LOCK_FILE: Final = Path("corral.lock")
"""In the working directory: the file belongs to the application that is started there.

`CORRAL_LOCK` names another.
"""

FORM: Final = 2
"""Of the file. The first form had no number, and nothing of distributions without a queue."""

HEADER: Final = (
    "# What may run here. Written by `corral lock`; review every change as you review code.\n"
)
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


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


@dataclass(frozen=True, slots=True)
class Lock:
    """What is agreed on.

    Attributes:
        queues: By name.
        plugins: The versions of distributions that declare no queue, by canonical name; None where
            the file is of the first form, which allows every one of them.
    """

    queues: Mapping[str, Locked]
    plugins: Mapping[str, str] | None

    @property
    def distributions(self) -> Mapping[str, str]:
        """The version of every distribution that is agreed on, by canonical name."""
        return {canonical(each.distribution): each.version for each in self.queues.values()} | dict(
            self.plugins or {}
        )


def read_lock(path: Path = LOCK_FILE) -> Lock | None:
    """The lock_entries of a file; None where there is no such file.

    Raises:
        ConfigurationError: The file is there, and cannot be read or is none of ours.
    """
    try:
        text = path.read_text("utf-8")
        import tomllib  # noqa: PLC0415  # few processes have a lock file

        return _lock(tomllib.loads(text))
    except FileNotFoundError:
        return None
    except (
        OSError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:  # no TOML, or not of our shape
        raise ConfigurationError(
            f"the lock file {str(path)!r} cannot be read: {error}",
            hint="restore it, or write it anew: corral lock",
        ) from error


def _lock(tables: dict[str, Any]) -> Lock:
    form, queues, plugins = (
        tables.pop("form", 1),
        tables.pop("queues", {}),
        tables.pop("plugins", {}),
    )
    if form not in {1, FORM}:
        raise ValueError(f"it is of the form {form!r}, and this release of Corral knows {FORM}")
    if tables:
        raise ValueError(f"it has {', '.join(map(repr, tables))}, which means nothing")
    agreed = {name: Locked(**_texts(fields)) for name, fields in queues.items()}
    versions = {canonical(name): _texts(fields)["version"] for name, fields in plugins.items()}
    return Lock(agreed, None if form == 1 else versions)


def _texts(fields: Mapping[str, object]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in fields.values()):
        raise ValueError(f"{fields!r} are not all texts")
    return {name: str(value) for name, value in fields.items()}


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock_entries: the same queues and plugins give the same bytes.

    Args:
        path: Where to; what is there is replaced.
        lock: What to agree on: `catalog.lock_entries()`.

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
    text = partial(
        json.dumps, ensure_ascii=False
    )  # a JSON string without escaped surrogates is a TOML string
    key = name if BARE_KEY.fullmatch(name) else text(name)
    return f"\n[{group}.{key}]\n" + "".join(
        f"{field} = {text(value)}\n" for field, value in fields.items()
    )


def check_lock_names(lock: Lock, claims: Iterable[Claim], report: Report) -> None:
    """Compare names with the lock_entries, before anything is imported.

    Args:
        lock: The lock_entries.
        claims: The entry points that are about to be imported; the application's and the core's own
            are no matter of the lock file.
        report: Gets every queue and plugin that is not agreed on; its entry points are `faulty`
        then.
    """
    distributions = lock.distributions
    for claim in claims:
        if claim.group == APPLICATION or claim.provider.origin == BUILT_IN:
            continue
        who, agreed = claim.provider, lock.queues.get(claim.name)
        hint = f"agree to it: corral lock; or uninstall {who.distribution}"
        if claim.group == QUEUES and agreed is None:
            report.add(
                "not-locked",
                f"queue {claim.name!r} of {who} is not in the lock file",
                [who],
                hint=hint,
            )
        elif (
            claim.group == QUEUES
            and agreed
            and canonical(agreed.distribution) != canonical(who.distribution)
        ):
            told = _differing("distribution", agreed.distribution, who.distribution)
            message = f"queue {claim.name!r} of {who} differs from the lock file: {told}"
            report.add("lock-differs", message, [who], hint=hint)
        elif (
            claim.group != QUEUES
            and lock.plugins is not None
            and canonical(who.distribution) not in distributions
        ):
            report.add(
                "not-locked",
                f"plugin {claim.name!r} of {who} is not in the lock file",
                [who],
                hint=hint,
            )
        else:
            continue
        report.faulty.add(claim)


def check_lock(
    lock: Lock,
    queues: Mapping[str, tuple[Provider, str]],
    plugins: Iterable[Provider],
    report: Report,
    *,
    patches: bool = False,
) -> list[str]:
    """Compare versions and payloads with what was agreed on.

    Args:
        lock: The lock_entries.
        queues: The provider and the fingerprint of each queue that is installed and whose name is
        agreed on.
        plugins: The distributions that have hooks and no queue.
        report: Gets what differs.
        patches: Whether patch releases with the same payloads are allowed.

    Returns:
        Warnings, a sentence each.
    """
    hint = "install what was agreed on, or agree to the change: corral lock"
    patched: dict[Provider, str] = {}
    for name, (provider, fingerprint) in sorted(queues.items()):
        agreed = lock.queues[name]
        version = _differing("version", agreed.version, provider.version)
        shape = _differing("fingerprint", agreed.fingerprint, fingerprint)
        if not shape and is_patch(agreed.version, provider.version):
            patched[provider] = (
                f"{provider} is a patch release of {agreed.version}, which is locked, with the same payloads"
            )
        elif told := ", ".join(filter(None, (version, shape))):
            message = f"queue {name!r} of {provider} differs from the lock file: {told}"
            report.add("lock-differs", message, [provider], hint=hint)
    for provider in plugins:
        locked = lock.distributions.get(canonical(provider.distribution), provider.version)
        if is_patch(locked, provider.version):
            patched[provider] = f"{provider} is a patch release of {locked}, which is locked"
        elif told := _differing("version", locked, provider.version):
            report.add(
                "lock-differs",
                f"plugin {provider} differs from the lock file: {told}",
                [provider],
                hint=hint,
            )
    if patches:
        return [*patched.values()]
    for provider, text in patched.items():
        report.add(
            "patch-release",
            text,
            [provider],
            hint="agree to it: corral lock; or CORRAL_LOCK_PATCHES=allow",
        )
    return []


def check_complete(lock: Lock, claims: Collection[Claim], report: Report) -> None:
    """Find what was agreed on and is not there.

    Args:
        lock: The lock_entries.
        claims: All that is installed, disabled or not: disabling is a decision, not a loss.
        report: Gets every queue and distribution that is missing.
    """
    for name in sorted(
        lock.queues.keys() - {claim.name for claim in claims if claim.group == QUEUES}
    ):
        hint = f"install {lock.queues[name].distribution}, or agree to its removal: corral lock"
        report.add(
            "locked-missing", f"queue {name!r} is in the lock file and not installed", hint=hint
        )
    for name in sorted(
        (lock.plugins or {}).keys() - {canonical(claim.provider.distribution) for claim in claims}
    ):
        hint = "install it, or agree to its removal: corral lock"
        report.add(
            "locked-missing",
            f"the plugin {name!r} is in the lock file and not installed",
            hint=hint,
        )


def _differing(field: str, locked: str, installed: str) -> str:
    return (
        ""
        if locked == installed
        else f"{field} {locked!r} is locked and {installed!r} is installed"
    )
