"""The queue `emails`: one job is one templated mail. This file is all that a producer ever loads.

It must know neither SMTP nor templates: corral and pydantic's e-mail extra are enough to import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator, EmailStr, JsonValue, StringConstraints
from pydantic_core import PydanticCustomError

from corral import Exponential, JobOptions, Payload, Processor, Queue, hookimpl

if TYPE_CHECKING:  # settings are loaded where they are read
    from corral import PluginSettings

__all__ = ["EmailJob", "emails"]


def one_line(value: object) -> object:
    """Refuse CR, LF and NUL in every string and key of a JSON value: they inject headers.

    Raises:
        PydanticCustomError: One of the three is in it.
    """
    if isinstance(value, str):
        if not {"\r", "\n", "\0"}.isdisjoint(value):
            raise PydanticCustomError("one_line", "line breaks and NUL are not allowed")
    elif isinstance(value, Mapping):
        one_line([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for item in value:
            one_line(item)
    return value


def no_encoded_word(address: str) -> str:
    """Refuse an address that a reader of headers would decode into another one.

    Raises:
        PydanticCustomError: It holds the beginning of an encoded word (RFC 2047).
    """
    if "=?" in address:
        raise PydanticCustomError("encoded_word", "encoded words are not allowed in an address")
    return address


OneLine = BeforeValidator(one_line)
Address = Annotated[EmailStr, AfterValidator(no_encoded_word), OneLine]


class EmailJob(Payload):
    """A mail to one person.

    Attributes:
        to: The address.
        template: The name of a template: a folder, shipped or the application's own.
        variables: What the template needs. They stay readable in the store as long as the job does.
        locale: `de`, `de-AT`: a variant of the template, where it has one.
        cc: Addresses that get the same mail. One that is refused does not stop it.
        reply_to: Where answers go.
    """

    to: Address
    template: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
    variables: Annotated[Mapping[str, JsonValue], OneLine]
    locale: (
        Annotated[
            str, StringConstraints(pattern=r"^[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*$", max_length=35)
        ]
        | None
    ) = None
    cc: tuple[Address, ...] = ()
    reply_to: Address | None = None


emails = Queue(
    "emails",
    EmailJob,
    # the mail server may be away, or refuse us, for a day; one that restarts, or greylists for five
    # minutes, is asked again soon
    options=JobOptions(
        backoff=Exponential(delay=timedelta(seconds=10), jitter=0.25, max=timedelta(hours=1))
    ).retrying_for(timedelta(days=1)),
)


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue."""
    return [emails]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings, `CORRAL_EMAILS_…`."""
    from corral_emails.settings import EmailSettings  # noqa: PLC0415  # read where it is needed

    return [EmailSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor; what SMTP and templates need is imported in here."""
    from corral_emails.processor import open_mailer, send_email  # noqa: PLC0415  # a producer must not pay for it

    return [emails.processed_by(send_email, using=open_mailer)]
