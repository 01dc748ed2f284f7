"""What operators learn of the mail server: a counter, the log, and what `corral health` prints.

While the server refuses us, every mail fails and is tried again for a day. This module says so
once, so that nobody has to read it from thousands of jobs.
"""

from __future__ import annotations

import logging
import math
from time import monotonic
from typing import TYPE_CHECKING, Final, get_args

from corral_emails import emails
from corral_emails.refusals import About

if TYPE_CHECKING:
    from corral import Deps, PluginCounter
    from corral_emails.refusals import Refusal

__all__ = ["ServerReport"]

REFUSED: Final = "corral_emails_refused_total"

LISTED_AFTER: Final = 3
"""Failures in a row, with no mail taken in between, that are a problem of the operator.

One or two are a connection that broke, or a greylist.
"""
REMIND_SECONDS: Final = 60.0
"""How often refusals of the same command by the same code are logged, also if mail is taken in
between: a server that refuses every other mail must not fill the log.
"""

log = logging.getLogger("corral_emails")


class ServerReport:
    """Reports how the mail server treats this worker.

    Args:
        deps: What a worker offers; None, as in a unit test, to write to the log only.
    """

    def __init__(self, deps: Deps | None = None) -> None:
        self._deps = deps
        self._refused: PluginCounter | None = None
        if deps is not None:
            self._refused = deps.counter(
                REFUSED,
                "Refusals of mails, and of addresses in cc, by the mail server.",
                label="about",
                values=get_args(About),
            )
        self._failures = 0
        self._logged_at: dict[object, float] = {}

    def count(self, refusal: Refusal) -> None:
        """Count a refusal."""
        if self._refused is not None:
            self._refused.add(refusal.verdict.about)

    def report_refusal(self, server: str, refusal: Refusal) -> None:
        """Count a refusal of a mail. One that is about us is logged, and listed if it stays."""
        self.count(refusal)
        if refusal.verdict.about == "sender":
            said = f"{server} answered {refusal.command} with {refusal}"
            sentence = f"the mail server refuses us: {said}"
            self._report(sentence, (refusal.command, refusal.code))

    def report_failure(self, error: Exception) -> None:
        """Log that the server could not be reached or used, and list it if it stays."""
        sentence = f"the mail server cannot be used: {str(error) or type(error).__name__}"
        self._report(sentence, type(error))

    def report_taken(self) -> None:
        """End what was reported: the server has taken a mail."""
        failures, self._failures = self._failures, 0
        if failures >= LISTED_AFTER:
            log.info("the mail server takes mail again, after %d failures", failures)
            if self._deps is not None:
                self._deps.clear_trouble(emails)

    def _report(self, sentence: str, kind: object) -> None:
        """Report a failure. Those of one kind have the same reason, whatever else they say."""
        self._failures += 1
        now = monotonic()
        if now - self._logged_at.get(kind, -math.inf) >= REMIND_SECONDS:
            self._logged_at[kind] = now
            log.warning("%s (mail is tried again)", sentence)
        if self._failures >= LISTED_AFTER and self._deps is not None:
            self._deps.report_trouble(emails, sentence)
