"""Carrying a deletion out, in three steps that each leave a mark: erase, scrub, confirm.

Everything is erased in one transaction, with the receipts and `processed_at`. Then the queues are
gone through, which is no transaction and may be done again. The last transaction enqueues the mail,
forgets the address and marks the request as finished. A worker that dies goes on at the last mark.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from corral import Answer, Deps, EnqueueOptions, Fail, HookRaised, Retention, Snooze
from corral.errors import JobRefused
from corral.sql import Outbox, ensure_unspoilt
from corral_account_deletions import hookspecs
from corral_account_deletions.person import Person
from corral_account_deletions.requests import DeletionRequest
from corral_account_deletions.tables import account_deletion_receipts
from corral_account_deletions.traces import take_back

__all__ = ["AGAIN", "MAIL_QUEUE", "Deletion", "DeletionFailed"]

MAIL_QUEUE: Final = "emails"

AGAIN: Final = timedelta(seconds=10)
"""How long a deletion waits for a job that is addressed to the user: it will have ended, and be
scrubbed.
"""

LEEWAY: Final = timedelta(minutes=1)
"""A job that comes so much too early is on time: `due_at` was read from another clock
than the store's.
"""

log = logging.getLogger("corral_account_deletions")

MAIL_OPTIONS: Final[EnqueueOptions] = {
    "keep_completed": Retention(
        count=0
    ),  # the job holds the address: it is removed as it ends, well or not
    "keep_failed": Retention(count=0),
}


class DeletionFailed(Exception):
    """A transaction was rolled back.

    Its message and its note are without the user's address, because the job keeps both.
    """


class Deletion:
    """Carries deletions out.

    Args:
        engine: The database.
        deps: Asks the plugin's hooks, and enqueues the confirmation.
        user_keys: As `Person`.
        has_mail_queue: Whether there is a queue for the confirmation.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        deps: Deps,
        *,
        user_keys: frozenset[str],
        has_mail_queue: bool,
    ) -> None:
        self._engine = engine
        self._deps = deps
        self._user_keys = user_keys
        self._has_mail_queue = has_mail_queue

    def person(self, request: DeletionRequest) -> Person:
        """Who is to be forgotten."""
        return Person(request.user_id, request.email, self._user_keys)

    async def erase(self, request_id: str, user_id: str, now: datetime) -> DeletionRequest:
        """Erase everything, unless that has happened, or was cancelled.

        Args:
            request_id: The request.
            user_id: Whose, as the job says.
            now: The moment at which the job runs (aware).

        Returns:
            The request, as it is after this.

        Raises:
            Fail: There is no such request, or it is somebody else's.
            Snooze: It is not due yet.
            DeletionFailed: A participant raised, or the database did.
        """
        with _discreet("nothing was erased") as known:
            async with self._engine.begin() as connection:
                request = await self._request(connection, request_id)
                if request.user_id != user_id:
                    raise Fail(f"deletion request {request_id!r} is another user's")
                if request.cancelled_at or request.processed_at:
                    return request
                if now + LEEWAY < request.due_at:
                    raise Snooze(after=request.due_at - now)
                known.append(self.person(request))
                processed = replace(request, processed_at=now)
                await self._erase(connection, processed, known[0])
        return processed

    async def finish(self, request_id: str, now: datetime, mail_id: str) -> int | None:
        """Enqueue the confirmation and forget the address, unless that has happened.

        Args:
            request_id: The request; everything is erased.
            now: The moment (aware).
            mail_id: The id of the confirmation's job.

        Returns:
            How many rows were erased, by the receipts; None where another job has finished it
            meanwhile.

        Raises:
            Snooze: The outbox holds a job that is addressed to the user.
            DeletionFailed: The database, or whoever keeps the requests, raised.
        """
        with _discreet("everything was erased, and the mail was not enqueued") as known:
            async with self._engine.begin() as connection:
                request = await self._request(connection, request_id)
                known.append(self.person(request))
                if request.finished_at is not None:
                    return None
                if await take_back(connection, known[0]):
                    raise Snooze(after=AGAIN)
                if request.email is not None and self._has_mail_queue:
                    await self._enqueue_confirmation(connection, request, known[0], mail_id)
                await self._record(
                    connection, replace(request, email=None, locale=None, finished_at=now)
                )
                receipts = account_deletion_receipts.c
                removed = select(func.sum(receipts.amount)).where(receipts.request_id == request_id)
                return int(await connection.scalar(removed) or 0)

    async def _request(self, connection: AsyncConnection, request_id: str) -> DeletionRequest:
        request = await self._deps.ask_first(
            hookspecs.account_deletions_find_request, request_id=request_id, connection=connection
        )
        if request is None:
            raise Fail(f"no deletion request {request_id!r}")
        return request

    async def _erase(
        self, connection: AsyncConnection, request: DeletionRequest, person: Person
    ) -> None:
        answers = await self._deps.ask_all(
            hookspecs.account_deletions_erase, user_id=request.user_id, connection=connection
        )
        await ensure_unspoilt(connection, "account_deletions_erase")
        await take_back(connection, person)
        receipts = [
            {"request_id": request.id, "participant": participant, "name": name, "amount": amount}
            for (participant, name), amount in _counted(answers).items()
        ]
        if receipts:
            await connection.execute(insert(account_deletion_receipts), receipts)
        await self._record(connection, request)

    async def _record(self, connection: AsyncConnection, request: DeletionRequest) -> None:
        answers = await self._deps.ask_all(
            hookspecs.account_deletions_save_progress, request=request, connection=connection
        )
        if not any(answer.value for answer in answers):
            raise LookupError(
                f"nobody has recorded deletion request {request.id!r}:"
                " see account_deletions_save_progress"
            )
        await ensure_unspoilt(connection, "account_deletions_save_progress")

    async def _enqueue_confirmation(
        self, connection: AsyncConnection, request: DeletionRequest, person: Person, mail_id: str
    ) -> None:
        mail: dict[str, Any] = {"to": request.email, "template": "account-deleted", "variables": {}}
        if request.locale is not None:
            mail["locale"] = request.locale
        options: EnqueueOptions = {**MAIL_OPTIONS, "job_id": mail_id}
        try:
            await Outbox(self._deps.jobs).within(connection).enqueue(MAIL_QUEUE, mail, **options)
        except JobRefused as error:  # no further attempt would make it a better address
            log.warning(
                "the mail that confirms a deletion cannot be sent, and the deletion goes on: %s",
                person.left_out_of(str(error)),
            )


def _counted(answers: list[Answer[Mapping[str, int] | None]]) -> Counter[tuple[str, str]]:
    """The receipts: a participant with several implementations has one for each name all the same.

    Raises:
        TypeError: An answer is no mapping of names to counts.
    """
    counted: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        removed = answer.value or {}
        try:
            for name, amount in removed.items():
                counted[str(answer.provider), str(name)] += int(amount)
        except (AttributeError, TypeError, ValueError):
            raise TypeError(
                f"account_deletions_erase of {answer.provider} returned no counts by name"
            ) from None
    return counted


@contextmanager
def _discreet(what: str) -> Iterator[list[Person]]:
    """Mask a person's address in an error and its traceback: both are stored with the job.

    The block appends the person to the list that it gets.

    Raises:
        DeletionFailed: Instead of any other error.
    """
    known: list[Person] = []
    try:
        yield known
    except (Fail, Snooze):
        raise
    except Exception as error:  # noqa: BLE001  # any error may hold the address
        raise _masked_failure(
            what, error, known
        ) from None  # printed, the original would speak for itself


def _masked_failure(what: str, error: Exception, known: list[Person]) -> DeletionFailed:
    cause: BaseException = error
    message = ""
    if isinstance(error, HookRaised) and error.__cause__ is not None:
        cause = error.__cause__
        message = f"{error.hook} of {error.provider}: "
    texts = [
        f"{what}: {message}{type(cause).__name__}: {cause}",
        "".join(traceback.format_exception(cause)),
    ]
    for person in known:
        texts = [person.left_out_of(text) for text in texts]
    made = DeletionFailed(texts[0])
    made.add_note(texts[1])
    return made
