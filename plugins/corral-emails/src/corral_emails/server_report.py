"""What operators learn of the mail server: a counter, the log, and what `corral health` prints.

While the server refuses us, every mail fails and is tried again for a day. This module says so
once, so that nobody has to read it from thousands of jobs.
"""

from __future__ import annotations

import logging
import time
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
"""How often it is logged while it lasts; each other sentence is logged at once."""

log = logging.getLogger("corral_emails")


class ServerReport:
    """Reports how the mail server treats this worker.

    Args:
        deps: The worker; None where nobody is to be told, as in a unit test.
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
        self._sentence = ""
        self._logged_at = 0.0

    def count(self, refusal: Refusal) -> None:
        """Count a refusal."""
        if self._refused is not None:
            self._refused.add(refusal.verdict.about)

    def report_refusal(self, server: str, refusal: Refusal) -> None:
        """Count a refusal of a mail. One that is about us is logged, and listed if it stays."""
        self.count(refusal)
        if refusal.verdict.about == "sender":
            said = f"{server} answered {refusal.command} with {refusal}"
            self._report(f"the mail server refuses us: {said}")

    def report_failure(self, error: Exception) -> None:
        """Log that the server could not be reached or used, and list it if it stays."""
        self._report(f"the mail server cannot be used: {error or type(error).__name__}")

    def report_taken(self) -> None:
        """End what was reported: the server has taken a mail."""
        if not self._failures:
            return
        log.info("the mail server takes mail again, after %d failures", self._failures)
        self._failures, self._sentence = 0, ""
        if self._deps is not None:
            self._deps.clear_trouble(emails)

    def _report(self, sentence: str) -> None:
        self._failures += 1
        now = time.monotonic()
        if sentence != self._sentence or now - self._logged_at >= REMIND_SECONDS:
            self._sentence, self._logged_at = sentence, now
            log.warning("%s (mail is tried again)", sentence)
        if self._failures >= LISTED_AFTER and self._deps is not None:
            self._deps.report_trouble(emails, sentence)
