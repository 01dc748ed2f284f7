"""Templates: whose comes first, in which language, what is escaped, and what fails for good."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral import Fail
from corral_emails import EmailJob
from corral_emails.rendering import Templates


def write(
    root: Path, folder: str, subject: str = "s", text: str = "t", html: str = "<p>h</p>"
) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name, content in {"subject.txt": subject, "body.txt": text, "body.html": html}.items():
        (root / folder / name).write_text(content, "utf-8")


def job(template: str, locale: str | None = None, **variables: object) -> EmailJob:
    return EmailJob.model_validate(
        {"to": "a@b.example", "template": template, "locale": locale, "variables": variables}
    )


@pytest.fixture
def own(tmp_path: Path) -> Templates:
    return Templates(tmp_path, sender="Acme")


def test_variables_are_escaped_in_html_and_nowhere_else(own, tmp_path) -> None:
    write(tmp_path, "hello", "{{ name }}", "{{ name }}", "{{ name }}")
    hello = own.render(job("hello", name="<b>&Co</b>"))
    assert (hello.subject, hello.text, hello.html) == (
        "<b>&Co</b>",
        "<b>&Co</b>",
        "&lt;b&gt;&amp;Co&lt;/b&gt;",
    )


def test_an_attribute_cannot_be_left(own) -> None:
    html = own.render(job("welcome", name="x", url='"><script>alert(1)</script>')).html
    assert "<script" not in html
    assert html.count("&#34;&gt;&lt;script&gt;") == 1


def test_the_applications_own_come_first_and_the_shipped_stay(own, tmp_path) -> None:
    write(tmp_path, "welcome", "Hi {{ name }}")
    assert own.render(job("welcome", name="Ada")).subject == "Hi Ada"
    assert own.render(job("account-deleted")).subject == "Your account at Acme is deleted"


def test_the_confirmation_of_a_deletion_claims_no_more_than_it_is_given(own) -> None:
    whole = own.render(job("account-deleted"))
    assert whole == own.render(job("account-deleted", complete=True, kept=[]))
    for text in (whole.text, whole.html):
        assert "your account and what we kept about you were deleted" in text
        assert "We keep" not in text
    assert whole.text == (
        "Hello,\n\nyour account and what we kept about you were deleted, as you asked. "
        "This is the last mail we send you.\n\nAcme"
    )
    kept = own.render(job("account-deleted", complete=True, kept=["tax <law>", "a ban"]))
    assert "what we kept about you beside the following were deleted" in kept.text
    assert "\n* tax <law>\n* a ban\n" in kept.text
    assert "<li>tax &lt;law&gt;</li>" in kept.html
    partly = own.render(job("account-deleted", complete=False, kept=[]))
    for text in (partly.text, partly.html):
        assert "not deleted yet" in text
        assert "and what we kept about you" not in text
        assert "last mail" not in text


def test_a_change_is_seen_without_a_restart(own, tmp_path) -> None:
    write(tmp_path, "hello", "one")
    assert own.render(job("hello")).subject == "one"
    write(tmp_path, "hello", "another")
    os.utime(
        tmp_path / "hello" / "subject.txt", (0, 0)
    )  # both writes may fall into one tick of the file system's clock
    assert own.render(job("hello")).subject == "another"


@pytest.mark.parametrize(
    ("locale", "subject"),
    [
        (None, "Hello"),
        ("de", "Hallo"),
        ("de-AT", "Servus"),
        ("DE_at", "Servus"),
        ("de-CH", "Hallo"),
        ("de-AT-1996", "Servus"),
        ("fr", "Hello"),
    ],
)
def test_a_locale_takes_the_nearest_variant(own, tmp_path, locale, subject) -> None:
    for folder, text in {"hello": "Hello", "hello/de": "Hallo", "hello/de-at": "Servus"}.items():
        write(tmp_path, folder, text)
    assert own.render(job("hello", locale)).subject == subject


def test_a_variant_of_a_shipped_template_is_a_folder_of_the_applications(own, tmp_path) -> None:
    write(tmp_path, "welcome/de", "Willkommen")
    assert own.render(job("welcome", "de", name="Ada", url="u")).subject == "Willkommen"
    assert own.render(job("welcome", "en", name="Ada", url="u")).subject == "Welcome to Acme, Ada"


def test_own_templates_may_extend_the_shipped_layout(own, tmp_path) -> None:
    write(
        tmp_path,
        "hello",
        html='{% extends "layout.html" %}{% block body %}{{ button("u", "Go") }}{% endblock %}',
    )
    assert "Acme" in own.render(job("hello")).html


class TestFailsForGood:
    def test_an_unknown_template_with_what_was_meant(self, own) -> None:
        with pytest.raises(
            Fail, match=r"^no email template is named 'wellcome': did you mean 'welcome'\?$"
        ):
            own.render(job("wellcome"))

    def test_an_unknown_template_with_what_there_is(self, own, tmp_path) -> None:
        write(tmp_path, "zebra")
        with pytest.raises(
            Fail,
            match=r"'x': there are account-deleted, export-ready, password-reset, welcome, zebra$",
        ):
            own.render(job("x"))

    def test_a_missing_variable(self, own) -> None:
        with pytest.raises(
            Fail, match=r"^template 'welcome/subject\.txt' needs .*: 'name' is undefined$"
        ):
            own.render(job("welcome", url="u"))

    def test_a_missing_file(self, own, tmp_path) -> None:
        write(tmp_path, "hello")
        (tmp_path / "hello" / "body.html").unlink()
        with pytest.raises(Fail, match=r"hello/body\.html"):
            own.render(job("hello"))

    @pytest.mark.parametrize("place", ["subject", "text", "html"])
    def test_a_broken_template_with_its_line(self, own, tmp_path, place) -> None:
        write(tmp_path, "hello", **{place: "one\n{% if %}"})
        with pytest.raises(Fail, match=r"^template 'hello/.*' is broken in line 2: "):
            own.render(job("hello"))

    @pytest.mark.parametrize(
        "expression",
        ["{{ count + 1 }}", "{{ 1 / (count|length - 1) }}", "{% for x in none %}{% endfor %}"],
    )
    @pytest.mark.parametrize("place", ["subject", "text", "html"])
    def test_a_variable_that_is_not_what_it_needs(self, own, tmp_path, place, expression) -> None:
        write(tmp_path, "hello", **{place: expression})
        with pytest.raises(
            Fail, match=r"^template 'hello/.*' cannot be rendered: (Type|ZeroDivision)Error: "
        ):
            own.render(job("hello", count="1"))

    def test_a_file_that_is_no_utf_8(self, own, tmp_path) -> None:
        write(tmp_path, "hello")
        for name in ("body.txt", "subject.txt"):
            (tmp_path / "hello" / name).write_bytes(b"\xff")
            with pytest.raises(
                Fail, match=rf"^template 'hello/{name}' cannot be rendered: UnicodeDecodeError: "
            ):
                own.render(job("hello"))


@pytest.mark.parametrize(
    "name", ["../welcome", "welcome/../x", "/etc", "Welcome", "", "a" * 65, "a--b"]
)
def test_a_template_name_is_no_path(name) -> None:
    with pytest.raises(ValueError, match="template"):
        job(name)
    with pytest.raises(ValueError, match="locale"):
        job("welcome", "../de")
