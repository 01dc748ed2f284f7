"""The processor of `emails`: renders, composes and sends a mail, and records that it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from corral import Deps, Job
from corral_emails import EmailJob
from corral_emails.accepted import Accepted
from corral_emails.message import compose_message
from corral_emails.settings import EmailSettings
from corral_emails.smtp import Mailer

__all__ = ["SentEmail", "open_mailer", "send_email"]


class SentEmail(BaseModel):
    """The job's result.

    Attributes:
        message_id: What the mail's `Message-ID` header says: the same on every attempt.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    message_id: str


@asynccontextmanager
async def open_mailer(deps: Deps) -> AsyncIterator[Mailer]:
    """The mailer of this worker.

    It connects when the first mail is sent, so that a worker starts without its server.

    Raises:
        ConfigurationError: A `CORRAL_EMAILS_…` setting cannot be used, or the database has no
        ledger.
    """
    settings = EmailSettings()
    mailer = Mailer(settings, accepted=await Accepted.open(deps))
    try:
        yield mailer
    finally:
        await mailer.close()


async def send_email(job: Job[EmailJob], mailer: Mailer) -> SentEmail:
    """Send one mail, unless an earlier run of this job has, and has recorded it.

    Returns:
        Its message id.

    Raises:
        Fail: The mail can never be sent: its template, a variable or an address is wrong, or the
            server refused it with a 5xx reply.
        Deferred: The server refused it for now, with a 4xx reply.
        DatabaseUnavailable: There is a ledger, and it cannot say whether the mail was sent before.
        Exception: The server could not be reached, or would not talk to us; whatever aiosmtplib
        raises.
    """
    message = compose_message(job, mailer.templates.render(job.payload), mailer.sender)
    accepted = mailer.accepted
    if accepted is None:
        await mailer.send(message)
    elif not await accepted.has(job.idempotency_key):
        await mailer.send(message)
        await accepted.record(job.idempotency_key)
    return SentEmail(message_id=str(message["Message-ID"]))
