"""The processor of `emails`: renders, composes and sends a mail, and records that it was sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from corral import Deps, Job
from corral_emails import EmailJob
from corral_emails.accepted import Accepted
from corral_emails.message import compose_message
from corral_emails.server_report import ServerReport
from corral_emails.settings import EmailSettings
from corral_emails.smtp import Mailer

__all__ = ["RefusedRecipient", "SentEmail", "open_mailer", "send_email"]


class RefusedRecipient(BaseModel):
    """An address of `cc` that did not get the mail, which went to the others.

    Attributes:
        address: The address.
        reply: The server's words.
        final: Whether it was refused for good (True), or only for now (False).
    """

    model_config = ConfigDict(frozen=True)

    address: str
    reply: str
    final: bool


class SentEmail(BaseModel):
    """The job's result.

    Attributes:
        message_id: What the mail's `Message-ID` header says: the same on every attempt.
        refused: The addresses of `cc` that the server refused; not in the JSON if there are none.
            Empty also where an earlier run of the job sent the mail: the ledger does not have them.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    message_id: str
    refused: tuple[RefusedRecipient, ...] = Field(default=(), exclude_if=lambda each: not each)


@asynccontextmanager
async def open_mailer(deps: Deps) -> AsyncIterator[Mailer]:
    """The mailer of this worker.

    It connects when the first mail is sent, so that a worker starts without its server.

    Raises:
        ConfigurationError: A `CORRAL_EMAILS_…` setting cannot be used, or the database has no
        ledger.
    """
    settings = EmailSettings()
    mailer = Mailer(settings, accepted=await Accepted.open(deps), report=ServerReport(deps))
    try:
        yield mailer
    finally:
        await mailer.close()


async def send_email(job: Job[EmailJob], mailer: Mailer) -> SentEmail:
    """Send one mail, unless an earlier run of this job has, and has recorded it.

    Returns:
        Its message id, and who was refused.

    Raises:
        Fail: The mail can never be sent: its template, a variable or an address is wrong, or the
            server refused it for good.
        Deferred: The server refused it, or us, for now.
        DatabaseUnavailable: There is a ledger, and it cannot say whether the mail was sent before.
        Exception: The server could not be reached, or would not talk to us; whatever aiosmtplib
            raises.
    """
    message = compose_message(job, mailer.templates.render(job.payload), mailer.sender)
    message_id = str(message["Message-ID"])
    accepted = mailer.accepted
    if accepted is not None and await accepted.has(job.idempotency_key):
        return SentEmail(message_id=message_id)
    refused = await mailer.send(message, attempt=job.attempt)
    if accepted is not None:
        await accepted.record(job.idempotency_key)
    return SentEmail(
        message_id=message_id,
        refused=tuple(
            RefusedRecipient(
                address=address, reply=str(refusal), final=refusal.verdict.attempts is not None
            )
            for address, refusal in refused
        ),
    )
