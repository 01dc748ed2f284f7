"""Carrying a deletion out, in three steps that each leave a mark: erase, scrub, confirm.

Everything is erased in one transaction, with the receipts and `processed_at`. Then the queues are
gone through, and what is outside of the database is erased, which is no transaction and may be done
again. The last transaction enqueues the mail,
forgets the address and marks the request as finished. A worker that dies goes on at the last mark.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from corral import Answer, Deps, EnqueueOptions, Fail, HookRaised, Retention, Snooze
from corral.errors import JobRefused
from corral.sql import Outbox, ensure_unspoilt
from corral_account_deletions import Kept, hookspecs
from corral_account_deletions.person import Person
from corral_account_deletions.requests import DeletionRequest
from corral_account_deletions.tables import account_deletion_kept, account_deletion_receipts
from corral_account_deletions.traces import take_back

__all__ = ["AGAIN", "MAIL_QUEUE", "Deletion", "DeletionFailed", "Finished", "KeptRows"]

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


@dataclass(frozen=True, slots=True)
class KeptRows:
    """What is kept of a user in one place, and why.

    Attributes:
        name: Where: a table, or what a participant calls it.
        amount: How many rows.
        reason: Why.
        anonymized: Whether nothing in them leads to the user any longer.
    """

    name: str
    amount: int
    reason: str
    anonymized: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """What a finished deletion has done, by its receipts.

    Attributes:
        rows: How much all participants removed.
        kept: What they kept.
    """

    rows: int
    kept: tuple[KeptRows, ...]


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

    async def find_person(self, request: DeletionRequest) -> Person:
        """Who is to be forgotten, and whether their address is another account's, too.

        Raises:
            DeletionFailed: `account_deletions_address_owners` raised, or the database did.
        """
        with _discreet("everything was erased, and the queues were not gone through") as known:
            known.append(self._masking(request))
            async with self._engine.begin() as connection:
                return await self._ask_for_person(connection, request)

    async def purge(self, request: DeletionRequest) -> Counter[tuple[str, str]]:
        """Have everybody erase what is outside of the database. It may be done again.

        Returns:
            How much was removed, by participant and name.

        Raises:
            DeletionFailed: A participant raised.
        """
        with _discreet("what is outside of the database was not all erased") as known:
            known.append(self._masking(request))
            answers = await self._deps.ask_all(
                hookspecs.account_deletions_purge, user_id=request.user_id
            )
            return _counted("account_deletions_purge", answers)[0]

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
                known.append(self._masking(request))
                processed = replace(request, processed_at=now)
                await self._erase(connection, processed)
        return processed

    async def finish(
        self,
        request_id: str,
        now: datetime,
        mail_id: str,
        *,
        purged: Mapping[tuple[str, str], int],
        is_complete: bool,
    ) -> Finished | None:
        """Enqueue the confirmation and forget the address, unless that has happened.

        Args:
            request_id: The request; everything is erased.
            now: The moment (aware).
            mail_id: The id of the confirmation's job.
            purged: What `purge` returned.
            is_complete: Whether all queues of the store were cleared; the mail says it.

        Returns:
            What was erased and kept, by the receipts; None where another job has finished it
            meanwhile.

        Raises:
            Snooze: The outbox holds a job that is addressed to the user.
            DeletionFailed: The database, or whoever keeps the requests, raised.
        """
        with _discreet("everything was erased, and the mail was not enqueued") as known:
            async with self._engine.begin() as connection:
                request = await self._request(connection, request_id)
                known.append(self._masking(request))
                if request.finished_at is not None:
                    return None
                if await take_back(connection, await self._ask_for_person(connection, request)):
                    raise Snooze(after=AGAIN)
                await self._add_receipts(connection, request_id, purged)
                finished = await _read_receipts(connection, request_id)
                if request.email is not None and self._has_mail_queue:
                    variables = {
                        "complete": is_complete,
                        "kept": list(
                            dict.fromkeys(
                                each.reason
                                for each in finished.kept
                                if each.amount and not each.anonymized
                            )
                        ),
                    }
                    await self._enqueue_confirmation(connection, request, variables, mail_id)
                await self._record(
                    connection, replace(request, email=None, locale=None, finished_at=now)
                )
                return finished

    def _masking(self, request: DeletionRequest) -> Person:
        """The person, for taking the address out of errors: nobody was asked whose it is."""
        return Person(request.user_id, request.email, self._user_keys)

    async def _ask_for_person(
        self, connection: AsyncConnection, request: DeletionRequest
    ) -> Person:
        owners = None
        if request.email is not None:
            owners = await self._deps.ask_first(
                hookspecs.account_deletions_address_owners,
                email=request.email,
                connection=connection,
            )
            await ensure_unspoilt(connection, "account_deletions_address_owners")
        if isinstance(owners, str):
            raise TypeError("account_deletions_address_owners was answered with a text, no list")
        others = None if owners is None else frozenset(map(str, owners)) - {request.user_id}
        return Person(request.user_id, request.email, self._user_keys, others=others)

    async def _request(self, connection: AsyncConnection, request_id: str) -> DeletionRequest:
        request = await self._deps.ask_first(
            hookspecs.account_deletions_find_request, request_id=request_id, connection=connection
        )
        if request is None:
            raise Fail(f"no deletion request {request_id!r}")
        return request

    async def _erase(self, connection: AsyncConnection, request: DeletionRequest) -> None:
        answers = await self._deps.ask_all(
            hookspecs.account_deletions_erase, user_id=request.user_id, connection=connection
        )
        await ensure_unspoilt(connection, "account_deletions_erase")
        await take_back(connection, await self._ask_for_person(connection, request))
        removed, kept = _counted("account_deletions_erase", answers)
        await self._add_receipts(connection, request.id, removed)
        if kept:
            rows = [
                {"request_id": request.id, "participant": participant, "name": name, **asdict(each)}
                for (participant, name), each in kept.items()
            ]
            await connection.execute(insert(account_deletion_kept), rows)
        await self._record(connection, request)

    @staticmethod
    async def _add_receipts(
        connection: AsyncConnection, request_id: str, removed: Mapping[tuple[str, str], int]
    ) -> None:
        """Store what was removed; what a participant has in both steps is one receipt."""
        for (participant, name), amount in removed.items():
            receipts = account_deletion_receipts.c
            more = (
                update(account_deletion_receipts)
                .where(
                    receipts.request_id == request_id,
                    receipts.participant == participant,
                    receipts.name == name,
                )
                .values(amount=receipts.amount + amount)
            )
            if not (await connection.execute(more)).rowcount:
                row = {"request_id": request_id, "participant": participant, "name": name}
                await connection.execute(
                    insert(account_deletion_receipts).values(**row, amount=amount)
                )

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
        self,
        connection: AsyncConnection,
        request: DeletionRequest,
        variables: Mapping[str, object],
        mail_id: str,
    ) -> None:
        mail: dict[str, Any] = {
            "to": request.email,
            "template": "account-deleted",
            "variables": variables,
        }
        if request.locale is not None:
            mail["locale"] = request.locale
        options: EnqueueOptions = {**MAIL_OPTIONS, "job_id": mail_id}
        try:
            await Outbox(self._deps.jobs).within(connection).enqueue(MAIL_QUEUE, mail, **options)
        except JobRefused as error:  # no further attempt would make it a better address
            log.warning(
                "the mail that confirms a deletion cannot be sent, and the deletion goes on: %s",
                self._masking(request).left_out_of(str(error)),
            )


async def _read_receipts(connection: AsyncConnection, request_id: str) -> Finished:
    receipts, kept = account_deletion_receipts.c, account_deletion_kept.c
    removed = select(func.sum(receipts.amount)).where(receipts.request_id == request_id)
    columns = (kept.name, kept.amount, kept.reason, kept.anonymized)
    held = select(*columns).where(kept.request_id == request_id).order_by(kept.name)
    return Finished(
        rows=int(await connection.scalar(removed) or 0),
        kept=tuple(KeptRows(*row) for row in await connection.execute(held)),
    )


def _counted(
    hook: str, answers: Sequence[Answer[Mapping[str, int | Kept] | Mapping[str, int] | None]]
) -> tuple[Counter[tuple[str, str]], dict[tuple[str, str], Kept]]:
    """What was removed and what was kept, by participant and name.

    A participant with several implementations has one receipt for each name all the same. What is
    anonymized is in both: its contents were removed, and its rows were kept.

    Raises:
        TypeError: An answer is no mapping of names to counts.
    """
    counted: Counter[tuple[str, str]] = Counter()
    kept: dict[tuple[str, str], Kept] = {}
    for answer in answers:
        removed = answer.value or {}
        try:
            for name, amount in removed.items():
                where = str(answer.provider), str(name)
                if not isinstance(amount, Kept):
                    counted[where] += int(amount)
                    continue
                before = kept[where].amount if where in kept else 0
                kept[where] = replace(amount, amount=before + int(amount.amount))
                if amount.anonymized:
                    counted[where] += int(amount.amount)
        except (AttributeError, TypeError, ValueError):
            raise TypeError(f"{hook} of {answer.provider} returned no counts by name") from None
    return counted, kept


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
