"""The connections of a worker: how many, for how long, and in which state they are left."""

from __future__ import annotations

import asyncio

import pytest

from corral import testing
from corral_emails import EmailJob, connection_pool, emails
from corral_emails.processor import open_mailer, send_email
from corral_emails.smtp import Deferred, Mailer

pytestmark = pytest.mark.asyncio

SECONDS = 10


def mail(key: str = "m", attempt: int = 1):
    payload = EmailJob(to="ada@example.org", template="account-deleted", variables={})
    return testing.job(emails, payload, id=key, attempt=attempt)


async def send_at_once(mailer: Mailer, number: int) -> None:
    await asyncio.gather(*(send_email(mail(f"m{n}"), mailer) for n in range(number)))


@pytest.fixture
def open_several(scripted, wait_until):
    """Makes a mailer open this many connections: so many mails are on their way at once."""

    async def opening(mailer: Mailer, number: int) -> None:
        scripted.answers.clear()
        before = sum(said.count("DATA") for said in scripted.said)

        def all_are_there() -> bool:
            return sum(said.count("DATA") for said in scripted.said) == before + number

        sending = asyncio.create_task(send_at_once(mailer, number))
        await wait_until(all_are_there, "each mail has a connection of its own")
        scripted.answers.set()
        await sending

    return opening


@pytest.fixture
def open_connections(scripted):
    """How many connections the server has."""
    return lambda: sum(not writer.is_closing() for writer in scripted.writers)


@pytest.mark.parametrize(("settings", "most"), [({}, 10), ({"connections": 3}, 3)])
async def test_400_mails_at_once_take_as_many_as_the_setting_says(
    scripted, mailer_with, wait_until, settings, most
) -> None:
    mailer = await mailer_with(port=scripted.port, **settings)
    scripted.answers.clear()
    sending = asyncio.create_task(send_at_once(mailer, 400))
    await wait_until(lambda: [said[-1] for said in scripted.said] == ["DATA"] * most, "all send")
    scripted.answers.set()
    await sending
    assert (len(scripted.mails), len(scripted.said)) == (400, most)
    assert all("RSET" not in said for said in scripted.said), "there is nothing to undo"


async def test_no_more_are_opened_than_mails_are_on_their_way(
    scripted, mailer_with, open_several
) -> None:
    """The queue's concurrency is a limit, too."""
    mailer = await mailer_with(port=scripted.port)
    await open_several(mailer, 4)
    await open_several(mailer, 4)
    assert (len(scripted.mails), len(scripted.said)) == (8, 4)


async def test_mails_are_sent_at_the_same_time(scripted, mailer_with, wait_until) -> None:
    """One that the server is slow to take does not hold up the others."""
    mailer = await mailer_with(port=scripted.port, connections=2)
    scripted.answers.clear()
    slow = asyncio.create_task(send_email(mail("slow"), mailer))
    await asyncio.wait_for(scripted.entered.wait(), SECONDS)
    other = asyncio.create_task(send_email(mail("other"), mailer))
    await wait_until(lambda: len(scripted.said) == 2 and "DATA" in scripted.commands(), "both")
    assert not slow.done()
    scripted.answers.set()
    await asyncio.wait_for(asyncio.gather(slow, other), SECONDS)


async def test_a_mail_that_waits_for_a_connection_and_is_cancelled_takes_none(
    scripted, mailer_with, wait_until
) -> None:
    mailer = await mailer_with(port=scripted.port, connections=1)
    scripted.answers.clear()
    first = asyncio.create_task(send_email(mail("first"), mailer))
    await asyncio.wait_for(scripted.entered.wait(), SECONDS)
    waiting = [asyncio.create_task(send_email(mail(f"w{n}"), mailer)) for n in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    scripted.answers.set()
    await asyncio.wait_for(asyncio.gather(first, *waiting[1:]), SECONDS)
    assert (len(scripted.mails), len(scripted.said)) == (3, 1)


@pytest.mark.parametrize("command", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."])
async def test_one_whose_mail_is_cancelled_is_never_used_again(
    scripted, mailer_with, wait_until, command
) -> None:
    """Wherever it is cancelled: a late reply would answer the next mail's first command."""
    mailer = await mailer_with(port=scripted.port)
    reached, go_on = asyncio.Event(), asyncio.Event()
    scripted.hold(command, reached, go_on)
    sending = asyncio.create_task(send_email(mail(), mailer))
    await asyncio.wait_for(reached.wait(), SECONDS)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    go_on.set()
    await send_email(mail("next"), mailer)
    assert len(scripted.said) == 2
    assert scripted.said[1][1].startswith("MAIL")


class TestAnIdleConnection:
    async def test_that_the_server_has_closed_costs_the_mail_nothing(
        self, scripted, mailer_with, open_several
    ) -> None:
        mailer = await mailer_with(port=scripted.port)
        await open_several(mailer, 5)
        scripted.hang_up()
        await open_several(mailer, 5)
        assert (len(scripted.mails), len(scripted.said)) == (10, 10)

    async def test_that_is_closed_at_the_next_command_costs_nothing_either(
        self, scripted, mailer_with, caplog
    ) -> None:
        """Its end had not arrived when the mail was to be sent."""
        mailer = await mailer_with(port=scripted.port)
        await send_email(mail("first"), mailer)
        scripted.replies["MAIL"] = [""]
        await send_email(mail(), mailer)
        assert (len(scripted.mails), len(scripted.said)) == (2, 2)
        assert caplog.messages == []

    async def test_that_was_forgotten_on_its_way_costs_the_wait_and_no_attempt(
        self, scripted, mailer_with
    ) -> None:
        """A firewall that drops what it does not know any more: no answer ever comes."""
        mailer = await mailer_with(port=scripted.port, timeout_seconds=0.2)
        await send_email(mail("first"), mailer)
        scripted.hold("MAIL", asyncio.Event(), asyncio.Event())
        await send_email(mail(), mailer)
        assert (len(scripted.mails), len(scripted.said)) == (2, 2)

    async def test_that_cannot_be_reset_costs_nothing(self, scripted, mailer_with) -> None:
        mailer = await mailer_with(port=scripted.port)
        for reply in ("421 closing", "500 what?", ""):
            scripted.replies["RCPT"] = ["450 4.7.1 later"]
            with pytest.raises(Deferred):
                await send_email(mail(), mailer)
            scripted.replies["RSET"] = [reply]
            await send_email(mail(attempt=2), mailer)
        assert (len(scripted.mails), len(scripted.said)) == (3, 4)

    async def test_is_closed_after_a_while_with_a_goodbye(
        self, scripted, mailer_with, monkeypatch, wait_until, open_connections, open_several
    ) -> None:
        monkeypatch.setattr(connection_pool, "IDLE_SECONDS", 0.05)
        mailer = await mailer_with(port=scripted.port)
        for round_ in (1, 2):
            await open_several(mailer, 3)
            await wait_until(lambda: open_connections() == 0, "all are closed")
            assert len(scripted.said) == 3 * round_
        assert {said[-1] for said in scripted.said} == {"QUIT"}

    async def test_is_the_one_that_was_used_last(self, scripted, mailer_with, open_several) -> None:
        """So the others grow old and are closed."""
        mailer = await mailer_with(port=scripted.port)
        await open_several(mailer, 4)
        before = [len(said) for said in scripted.said]
        for number in range(3):
            await send_email(mail(f"later-{number}"), mailer)
        used = [len(said) > count for said, count in zip(scripted.said, before, strict=True)]
        assert sorted(used) == [False, False, False, True]


class TestABrokenConnection:
    async def test_before_the_text_on_a_new_one_is_a_failed_attempt(
        self, scripted, mailer_with
    ) -> None:
        mailer = await mailer_with(port=scripted.port)
        scripted.replies["MAIL"] = [""]
        with pytest.raises(ConnectionError):
            await send_email(mail(), mailer)
        await send_email(mail(attempt=2), mailer)
        assert (len(scripted.mails), len(scripted.said)) == (1, 2)

    @pytest.mark.parametrize("is_reused", [False, True])
    async def test_after_the_text_is_never_sent_again_within_the_attempt(
        self, scripted, mailer_with, is_reused
    ) -> None:
        """The server may have taken it: only the next attempt, which asks the ledger, sends it."""
        mailer = await mailer_with(port=scripted.port)
        if is_reused:
            await send_email(mail("first"), mailer)
        scripted.replies["."] = [""]
        with pytest.raises(ConnectionError):
            await send_email(mail(), mailer)
        texts = sum(said.count("DATA") for said in scripted.said)
        assert texts == 1 + is_reused
        await send_email(mail(attempt=2), mailer)
        assert len(scripted.said) == 2

    async def test_after_the_text_for_want_of_an_answer_neither(
        self, scripted, mailer_with
    ) -> None:
        mailer = await mailer_with(port=scripted.port, timeout_seconds=0.2)
        await send_email(mail("first"), mailer)
        scripted.answers.clear()
        with pytest.raises(TimeoutError):
            await send_email(mail(), mailer)
        assert sum(said.count("DATA") for said in scripted.said) == 2


class TestTheEndOfAWorker:
    @pytest.fixture(autouse=True)
    def _to_the_scripted_server(self, scripted, monkeypatch) -> None:
        monkeypatch.setenv("CORRAL_EMAILS_PORT", str(scripted.port))
        monkeypatch.setenv("CORRAL_EMAILS_HOST", "127.0.0.1")

    async def test_says_goodbye_on_all_connections(self, scripted, deps, open_several) -> None:
        async with open_mailer(deps) as mailer:
            await open_several(mailer, 4)
        assert [said[-1] for said in scripted.said] == ["QUIT"] * 4
        assert "corral-emails-idle" not in {task.get_name() for task in asyncio.all_tasks()}

    async def test_does_not_wait_for_a_server_that_does_not_answer(
        self, scripted, deps, monkeypatch, open_several, wait_until, open_connections
    ) -> None:
        monkeypatch.setattr("corral_emails.connection.QUIT_SECONDS", 0.05)
        go_on = asyncio.Event()
        async with asyncio.timeout(SECONDS), open_mailer(deps) as mailer:
            await open_several(mailer, 2)
            for _ in range(2):
                scripted.hold("QUIT", asyncio.Event(), go_on)
        go_on.set()
        await wait_until(lambda: open_connections() == 0, "all are closed")

    async def test_closes_one_that_still_sends(self, scripted, deps) -> None:
        scripted.answers.clear()
        async with open_mailer(deps) as mailer:
            sending = asyncio.create_task(send_email(mail(), mailer))
            await asyncio.wait_for(scripted.entered.wait(), SECONDS)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(sending, SECONDS)
