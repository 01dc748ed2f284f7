"""Informing the user: one job of the queue `emails`, by its name, with a link that expires."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Final

from corral import Fail, Job, JobScheduler
from corral.errors import PayloadRefused, UnknownQueue
from corral_data_exports import DataExport
from corral_data_exports.links import signed_link
from corral_data_exports.records import Recipient
from corral_data_exports.settings import ExportSettings
from corral_data_exports.storage import Storage

__all__ = ["MAIL_QUEUE", "ReadyMail"]

MAIL_QUEUE: Final = "emails"

log = logging.getLogger("corral_data_exports")


class ReadyMail:
    """Enqueues the mail `export-ready`.

    Args:
        jobs: Enqueues it.
        storage: Makes the signed links of archives in an object store.
        settings: The form of links to archives in a directory, and how long a link is valid.
    """

    def __init__(self, jobs: JobScheduler, storage: Storage, settings: ExportSettings) -> None:
        self._jobs = jobs
        self._storage = storage
        self._settings = settings

    @property
    def has_links(self) -> bool:
        """Whether links can be made: by the storage, or by the settings of who serves archives."""
        return self._storage.can_sign or self._settings.base_url is not None

    async def ensure(self, job: Job[DataExport], key: str, recipient: Recipient) -> str | None:
        """Have one mail for this job, however often it runs.

        Args:
            job: The export.
            key: Its archive.
            recipient: Who gets the mail.

        Returns:
            The id of the mail's job; None where there is no link to send, or no queue `emails`.

        Raises:
            Fail: The queue `emails` refuses the address.
            Exception: The storage cannot sign, or the store is away.
        """
        if not self.has_links:
            log.info("the export %s is ready, and there is no link to mail", key)
            return None
        expires = datetime.now(UTC) + self._settings.link_lifetime
        payload: dict[str, Any] = {
            "to": recipient.email,
            "template": "export-ready",
            "variables": {
                "url": await self._link(key, expires),
                "expires": f"{expires:%Y-%m-%d %H:%M} UTC",
            },
        }
        if recipient.locale is not None:
            payload["locale"] = recipient.locale
        try:
            enqueued = await self._jobs.enqueue(
                MAIL_QUEUE, payload, job_id=job.key("export-ready"), if_failed="retry"
            )
        except UnknownQueue:
            log.info(
                "the export %s is ready, and no queue emails is installed to mail the link", key
            )
            return None
        except PayloadRefused as error:
            fields = ", ".join(
                path for path, _ in error.errors
            )  # a failed job is kept, and must not hold the address
            raise Fail(
                f"the archive {key} is there, but the queue emails refused the mail's {fields}"
            ) from None
        return enqueued.id

    async def _link(self, key: str, expires: datetime) -> str:
        settings = self._settings
        signed = await self._storage.sign_url(key, settings.link_lifetime)
        if signed is not None:
            return signed
        assert settings.link_secret is not None  # noqa: S101  # the settings have both or neither
        return signed_link(
            str(settings.base_url), key, settings.link_secret.get_secret_value(), expires
        )
