"""What the pages' examples take for granted: queues of an application, installed as a plugin."""

from typing import Any

from corral import Payload, Queue, hookimpl


class EmailJob(Payload):
    """A mail."""

    to: str
    template: str
    variables: dict[str, Any] = {}


class Invoice(Payload):
    """An invoice."""

    number: int


emails = Queue("emails", EmailJob)
invoices = Queue("invoices", Invoice)


@hookimpl
def corral_queues() -> list[Queue[Any]]:
    """Declare both."""
    return [emails, invoices]
