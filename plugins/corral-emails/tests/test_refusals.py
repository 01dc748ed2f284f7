"""What a refusal is about and how often its mail is tried: every rule, and its neighbours."""

from __future__ import annotations

import pytest

from corral_emails.refusals import EnhancedCode, Refusal, Verdict, classify

FOR_GOOD, THREE_TIMES, FOR_A_DAY = 1, 3, None

TABLE = [
    # before there is a recipient, everything is about us
    *(
        (command, reply, "sender", FOR_A_DAY)
        for command in ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL")
        for reply in (
            *("421 4.7.0", "454 4.7.0", "500", "501 5.5.4", "503 5.5.1", "530 5.7.0", "535 5.7.8"),
            *("550", "550 5.1.1", "550 5.4.5", "550 5.7.60", "552 5.2.2", "553 5.1.8", "554 5.6.0"),
            *("521 5.3.2", "250", "-1"),
        )
    ),
    # the recipient's address is wrong, or his mailbox is closed
    ("RCPT", "550", "recipient", FOR_GOOD),
    ("RCPT", "551", "recipient", FOR_GOOD),
    ("RCPT", "553", "recipient", FOR_GOOD),
    ("RCPT", "550 5.1.1", "recipient", FOR_GOOD),
    ("RCPT", "550 5.1.0", "recipient", FOR_GOOD),
    ("RCPT", "550 5.1.2", "recipient", FOR_GOOD),
    ("RCPT", "553 5.1.3", "recipient", FOR_GOOD),
    ("RCPT", "551 5.1.6", "recipient", FOR_GOOD),
    ("RCPT", "556 5.1.10", "recipient", FOR_GOOD),
    ("RCPT", "554 5.1.1", "recipient", FOR_GOOD),
    ("RCPT", "550 5.2.1", "recipient", FOR_GOOD),
    ("RCPT", "552 5.1.1", "recipient", FOR_GOOD),
    # his mailbox is full, or something else is wrong with it
    ("RCPT", "552", "recipient", FOR_A_DAY),
    ("RCPT", "552 5.2.2", "recipient", FOR_A_DAY),
    ("RCPT", "550 5.2.2", "recipient", FOR_A_DAY),
    ("RCPT", "550 5.2.0", "recipient", FOR_A_DAY),
    ("RCPT", "552 5.2.3", "recipient", FOR_A_DAY),
    ("RCPT", "452 4.2.2", "recipient", FOR_A_DAY),
    ("RCPT", "450 4.2.1", "recipient", FOR_A_DAY),
    ("RCPT", "450 4.1.1", "recipient", FOR_A_DAY),
    ("DATA", "552", "recipient", FOR_A_DAY),
    ("DATA", "552 5.2.2", "recipient", FOR_A_DAY),
    ("DATA", "452 4.2.2", "recipient", FOR_A_DAY),
    ("DATA", "550 5.1.1", "recipient", FOR_A_DAY),
    ("DATA", "550 5.2.1", "recipient", FOR_A_DAY),
    # a class that contradicts the code: the one that tries again counts
    ("RCPT", "550 4.1.1", "recipient", FOR_A_DAY),
    ("RCPT", "450 5.1.1", "recipient", FOR_A_DAY),
    ("DATA", "554 4.7.1", "sender", FOR_A_DAY),
    ("DATA", "451 5.6.0", "content", FOR_A_DAY),
    # at RCPT, but about us
    ("RCPT", "450 4.7.1", "sender", FOR_A_DAY),
    ("RCPT", "451", "sender", FOR_A_DAY),
    ("RCPT", "450", "sender", FOR_A_DAY),
    ("RCPT", "452 4.5.3", "sender", FOR_A_DAY),
    ("RCPT", "450 4.1.8", "sender", FOR_A_DAY),
    ("RCPT", "550 5.1.8", "sender", FOR_A_DAY),
    ("RCPT", "553 5.1.7", "sender", FOR_A_DAY),
    ("RCPT", "554 5.7.1", "sender", FOR_A_DAY),
    ("RCPT", "550 5.7.1", "sender", FOR_A_DAY),
    ("RCPT", "553 5.7.1", "sender", FOR_A_DAY),
    ("RCPT", "530 5.7.0", "sender", FOR_A_DAY),
    ("RCPT", "530", "sender", FOR_A_DAY),
    ("RCPT", "503 5.5.1", "sender", FOR_A_DAY),
    ("RCPT", "504 5.5.2", "sender", FOR_A_DAY),
    ("RCPT", "550 5.4.5", "sender", FOR_A_DAY),
    ("RCPT", "550 5.3.0", "sender", FOR_A_DAY),
    ("RCPT", "550 5.0.0", "sender", FOR_A_DAY),
    ("RCPT", "554", "sender", FOR_A_DAY),
    ("RCPT", "555", "sender", FOR_A_DAY),
    ("RCPT", "521", "sender", FOR_A_DAY),
    ("RCPT", "556", "sender", FOR_A_DAY),
    ("RCPT", "250", "sender", FOR_A_DAY),
    ("RCPT", "550 5.6.7", "content", FOR_A_DAY),
    # the text itself
    ("DATA", "554 5.6.0", "content", FOR_GOOD),
    ("DATA", "550 5.6.3", "content", FOR_GOOD),
    ("DATA", "552 5.2.3", "content", FOR_GOOD),
    ("DATA", "552 5.3.4", "content", FOR_GOOD),
    ("DATA", "554 5.7.1", "content", THREE_TIMES),
    ("DATA", "550 5.7.0", "content", THREE_TIMES),
    ("DATA", "552 5.7.0", "content", THREE_TIMES),
    ("DATA", "550 5.7.26", "content", THREE_TIMES),
    # after the text, but about us
    ("DATA", "451 4.7.1", "sender", FOR_A_DAY),
    ("DATA", "421 4.7.0", "sender", FOR_A_DAY),
    ("DATA", "452 4.3.1", "sender", FOR_A_DAY),
    ("DATA", "452", "sender", FOR_A_DAY),
    ("DATA", "530 5.7.0", "sender", FOR_A_DAY),
    ("DATA", "535 5.7.8", "sender", FOR_A_DAY),
    ("DATA", "550 5.4.5", "sender", FOR_A_DAY),
    ("DATA", "550 5.3.0", "sender", FOR_A_DAY),
    ("DATA", "503 5.5.1", "sender", FOR_A_DAY),
    ("DATA", "550 5.1.8", "sender", FOR_A_DAY),
    ("DATA", "550", "sender", FOR_A_DAY),
    ("DATA", "554", "sender", FOR_A_DAY),
    ("DATA", "554 5.0.0", "sender", FOR_A_DAY),
    ("DATA", "-1", "sender", FOR_A_DAY),
]


@pytest.mark.parametrize(("command", "reply", "about", "attempts"), TABLE)
def test_every_rule_and_its_neighbours(command, reply, about, attempts) -> None:
    code, _, enhanced = reply.partition(" ")
    parsed = EnhancedCode(*map(int, enhanced.split("."))) if enhanced else None
    assert classify(command, int(code), parsed) == Verdict(about, attempts)


def test_no_reply_is_final_but_those_of_the_table() -> None:
    """All combinations: what ends a mail is an address, a mailbox that is closed, or the text."""
    final = {
        (command, code, subject, detail)
        for command in ("CONNECT", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA")
        for code in range(200, 600)
        for subject in range(8)
        for detail in range(30)
        if classify(command, code, EnhancedCode(code // 100, subject, detail)).attempts == 1
    }
    kinds = {(command, subject) for command, _, subject, _ in final}
    assert kinds == {("RCPT", 1), ("RCPT", 2), ("DATA", 2), ("DATA", 3), ("DATA", 6)}
    assert {code // 100 for _, code, _, _ in final} == {5}
    assert {detail for _, _, subject, detail in final if subject == 1} == {*range(30)} - {7, 8}


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("5.1.1 nobody", (5, 1, 1)),
        ("5.1.1", (5, 1, 1)),
        ("4.7.500 busy", (4, 7, 500)),
        ("5.7.26 first line\n5.7.26 second line", (5, 7, 26)),
        ("sorry, no mailbox here by that name. (#5.1.1)", (5, 1, 1)),
        ("sorry, that domain is not in my list of allowed rcpthosts (#5.7.1)", (5, 7, 1)),
        ("#5.1.0 Address rejected", (5, 1, 0)),
        ("5.1.1.1 is no code", None),
        ("3.1.1 is none", None),
        ("10.5.1.1 is blocked", None),
        ("nobody here since version 5.1.1", None),
        ("", None),
    ],
)
def test_the_enhanced_code_is_read_where_servers_write_it(text, enhanced) -> None:
    assert Refusal.of_reply("RCPT", 550, text).enhanced == enhanced


def test_a_relay_that_writes_its_code_at_the_end_is_about_us() -> None:
    """Without it, a bare 553 would be about the recipient, and final."""
    text = "sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)"
    assert Refusal.of_reply("RCPT", 553, text).verdict == Verdict("sender")


class TestWhatIsKeptOfAReply:
    @pytest.mark.parametrize(
        ("said", "kept"),
        [
            ("5.1.1 <ada@example.org>: unknown", "550 5.1.1 <…>: unknown"),
            ("RCPT TO:<ada@example.org> failed", "550 RCPT TO:<…> failed"),
            ("user ada@example.org, gone", "550 user …, gone"),
            ("jörg@bücher.example is unknown", "550 … is unknown"),
            ("bounce+ada=example.org@x.example", "550 …"),
            (
                "see http://spf.example/?id=ada%40example.org&ip=::1",
                "550 see http://spf.example/…&ip=::1",
            ),
            ("one\n two\r\n\tthree", "550 one two three"),
            ("\x1b[31mred\x00", "550 ?[31mred?"),
            ("", "550"),
        ],
    )
    def test_has_no_address_and_is_one_printable_line(self, said, kept) -> None:
        assert str(Refusal.of_reply("RCPT", 550, said)) == kept

    def test_has_no_secret(self) -> None:
        reply = Refusal.of_reply(
            "AUTH", 501, "bad AUTH PLAIN c2VjcmV0 secret", ["secret", "c2VjcmV0", ""]
        )
        assert str(reply) == "501 bad AUTH PLAIN … …"

    def test_a_secret_does_not_change_the_code(self) -> None:
        assert Refusal.of_reply("RCPT", 550, "5.1.1 no", ["5"]).verdict.attempts == FOR_GOOD

    def test_is_short_whatever_was_said(self) -> None:
        text = Refusal.of_reply("DATA", 554, "5.7.1 " + "x" * 30_000).text
        assert len(text) == 200
        assert "@" not in Refusal.of_reply("DATA", 554, "x" * 990 + "@" * 30_000).text
