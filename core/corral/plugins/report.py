"""`Report`: all problems of the installed plugins, collected before anything is raised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from corral.errors import CatalogError, Problem
from corral.plugins.entry_points import APPLICATION, PluginEntryPoint, Provider

__all__ = ["Code", "Report", "disable_hint", "error_summary", "subject_of"]

MAX_SUMMARY_LENGTH: Final = 300
"""In characters. A report has one line per problem; the traceback has the whole text."""

Code = Literal[
    "application-declares",
    "bad-hookspecs",
    "bad-lock",
    "bad-name",
    "bad-options",
    "bad-payload",
    "bad-processor",
    "bad-schedule",
    "broken-metadata",
    "duplicate-processor",
    "duplicate-queue",
    "hook-arguments",
    "hook-raised",
    "hook-result",
    "hook-wrapper",
    "import-error",
    "lock-differs",
    "locked-missing",
    "look-alike",
    "missing-processor",
    "no-lock",
    "not-locked",
    "nothing-registered",
    "patch-release",
    "reserved-name",
    "shared-module",
    "timeout-on-def",
    "undeclared-processor",
    "undeclared-queue",
    "unknown-hook",
    "unmet-requirement",
]
"""Every `Problem.code` that refuses a start. Programs read these codes: none is ever renamed."""


@dataclass(slots=True)
class Report:
    """The problems that were found.

    Attributes:
        problems: In the order in which they were found.
        causes: The exceptions that plugins raised, with their tracebacks; each carries its
            problem's message as a note.
        faulty: Entry points whose module could not be loaded or asked completely. What they do not
            provide follows from that, and is not reported as a second problem.
    """

    problems: list[Problem] = field(default_factory=list[Problem])
    causes: list[BaseException] = field(default_factory=list[BaseException])
    faulty: set[PluginEntryPoint] = field(default_factory=set[PluginEntryPoint])

    def copy(self) -> Report:
        """A copy: what is added to it is not added to this report."""
        return Report(self.problems.copy(), self.causes.copy(), self.faulty.copy())

    def add(
        self,
        code: Code,
        message: str,
        providers: Iterable[Provider] = (),
        *,
        hint: str | None = None,
    ) -> None:
        """Add a problem.

        Args:
            code: Its code.
            message: One sentence that names the queue and its provider.
            providers: The distributions that are involved.
            hint: What the reader can do.
        """
        self.problems.append(
            Problem(code, message, hint, tuple(dict.fromkeys(map(str, providers))))
        )

    def add_for_plugin(
        self,
        code: Code,
        entry_points: Sequence[PluginEntryPoint],
        message: str,
        *,
        hint: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        """Add a problem of one module, and note its entry points as faulty.

        Args:
            code: The problem's code.
            entry_points: The entry points that name the module.
            message: What the module did, without a subject: the entry points are put before it.
            hint: What the reader can do, other than disabling the plugin.
            cause: The exception that the module raised.
        """
        message = f"{subject_of(entry_points)} {message}"
        providers = [each.provider for each in entry_points]
        if entry_points[0].group != APPLICATION:
            hint = f"{hint}, or {disable_hint(providers)}" if hint else disable_hint(providers)
        self.add(code, message, providers, hint=hint)
        self.faulty.update(entry_points)
        if cause is not None:
            cause.add_note(message)
            self.causes.append(cause)

    def raise_problems(self) -> None:
        """Raise if there is any problem.

        Raises:
            CatalogError: With all problems. Its `__cause__` is the exception that a plugin raised;
                of several, an exception group.
        """
        if not self.problems:
            return
        cause = self.causes[0] if len(self.causes) == 1 else None
        if len(self.causes) > 1:
            cause = BaseExceptionGroup("raised by plugins", self.causes)
        raise CatalogError(tuple(self.problems)) from cause


def subject_of(entry_points: Sequence[PluginEntryPoint]) -> str:
    """Entry points as the subject of a sentence: `plugin 'emails' (corral-emails 0.1.0)`."""
    if entry_points[0].group == APPLICATION:
        return f"application {entry_points[0].name!r}"
    names = ", ".join(dict.fromkeys(repr(each.name) for each in entry_points))
    providers = ", ".join(dict.fromkeys(str(each.provider) for each in entry_points))
    return f"{'plugin' if len(entry_points) == 1 else 'plugins'} {names} ({providers})"


def disable_hint(providers: Iterable[Provider]) -> str:
    """A hint that says how to start without these distributions."""
    names = ",".join(dict.fromkeys(provider.distribution for provider in providers))
    return f"disable it: CORRAL_DISABLED_PLUGINS={names}"


def error_summary(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    if len(text) > MAX_SUMMARY_LENGTH:
        text = f"{text[:MAX_SUMMARY_LENGTH]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
