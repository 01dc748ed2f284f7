"""`Report`: everything that is wrong with what is installed, gathered before anything is raised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from corral.errors import CatalogError, Problem
from corral.plugins.entry_points import APPLICATION, Claim, Provider

__all__ = ["Code", "Report", "blamed", "disabling", "summary"]

MAX_SUMMARY_LENGTH: Final = 300
"""A report has one line per problem; the whole text is in the traceback."""

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
    "timeout-on-def",
    "undeclared-processor",
    "undeclared-queue",
    "unknown-hook",
]
"""Every `Problem.code` that refuses a start. Machines read them: none is ever renamed."""


@dataclass(slots=True)
class Report:
    """What is wrong.

    Attributes:
        problems: In the order in which they were found.
        causes: The exceptions behind them, tracebacks and all; each carries its problem's message
        as a note.
        faulty: Entry points whose module could not be asked for all it provides: what is missing
            from them is a consequence, not a second problem.
    """

    problems: list[Problem] = field(default_factory=list[Problem])
    causes: list[BaseException] = field(default_factory=list[BaseException])
    faulty: set[Claim] = field(default_factory=set[Claim])

    def copy(self) -> Report:
        """A report to go on with; what is added to it is not added here."""
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
            providers: Who is involved.
            hint: What the reader can do.
        """
        self.problems.append(
            Problem(code, message, hint, tuple(dict.fromkeys(map(str, providers))))
        )

    def blame(
        self,
        code: Code,
        claims: Sequence[Claim],
        message: str,
        *,
        hint: str | None = None,
        cause: BaseException | None = None,
    ) -> None:
        """Add a problem of a module.

        Args:
            code: The problem's code.
            claims: The entry points that name the module.
            message: What it did, without its name: the sentence begins with that.
            hint: What the reader can do, other than disabling it.
            cause: What was raised.
        """
        message = f"{blamed(claims)} {message}"
        providers = [claim.provider for claim in claims]
        if claims[0].group != APPLICATION:
            hint = f"{hint}, or {disabling(providers)}" if hint else disabling(providers)
        self.add(code, message, providers, hint=hint)
        self.faulty.update(claims)
        if cause is not None:
            cause.add_note(message)
            self.causes.append(cause)

    def raise_problems(self) -> None:
        """Refuse to go on if anything is wrong.

        Raises:
            CatalogError: With all problems. Its `__cause__` is what plugins raised; where several
            did, as a group.
        """
        if not self.problems:
            return
        cause = self.causes[0] if len(self.causes) == 1 else None
        if len(self.causes) > 1:
            cause = BaseExceptionGroup("raised by plugins", self.causes)
        raise CatalogError(tuple(self.problems)) from cause


def blamed(claims: Sequence[Claim]) -> str:
    """Entry points as the subject of a sentence: `plugin 'emails' (corral-emails 0.1.0)`."""
    if claims[0].group == APPLICATION:
        return f"application {claims[0].name!r}"
    names = ", ".join(dict.fromkeys(repr(claim.name) for claim in claims))
    providers = ", ".join(dict.fromkeys(str(claim.provider) for claim in claims))
    return f"{'plugin' if len(claims) == 1 else 'plugins'} {names} ({providers})"


def disabling(providers: Iterable[Provider]) -> str:
    """How to go on without them."""
    names = ",".join(dict.fromkeys(provider.distribution for provider in providers))
    return f"disable it: CORRAL_DISABLED_PLUGINS={names}"


def summary(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    if len(text) > MAX_SUMMARY_LENGTH:
        text = f"{text[:MAX_SUMMARY_LENGTH]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
