"""Templates: folders with `subject.txt`, `body.txt`, `body.html`, and a folder for each locale.

It knows nothing of SMTP. Whatever is wrong with a template or its variables is wrong on every
attempt: `Fail`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    UndefinedError,
    select_autoescape,
)

from corral import Fail
from corral_emails import EmailJob

__all__ = ["Rendered", "Templates"]

FILES = ("subject.txt", "body.txt", "body.html")


@dataclass(frozen=True, slots=True)
class Rendered:
    """What a template says to one person.

    Attributes:
        subject: One line, as far as the template goes; whoever makes a header of it looks again.
        text: The plain text.
        html: The same as HTML.
    """

    subject: str
    text: str
    html: str


class Templates:
    """The application's templates, and the shipped ones behind them, file by file.

    Args:
        folder: The application's own, or None.
        sender: Whom the mail is from, as people read it; templates say `{{ sender }}`.
    """

    def __init__(self, folder: Path | None, sender: str) -> None:
        shipped = PackageLoader("corral_emails", "templates")
        self._environment = Environment(
            loader=ChoiceLoader([FileSystemLoader(folder), shipped]) if folder else shipped,
            autoescape=select_autoescape(["html"], default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(sender=sender)

    def render(self, job: EmailJob) -> Rendered:
        """Render the mail's subject and both bodies.

        Raises:
            Fail: The template does not exist or is broken, or a variable is missing or not what the
            template needs.
        """
        folder = self._folder(job)
        subject, text, html = (self._render_file(f"{folder}/{name}", job) for name in FILES)
        return Rendered(subject.strip(), text, html)

    def _folder(self, job: EmailJob) -> str:
        """The template's folder: `welcome/de-at`, else `welcome/de`, else `welcome`."""
        tags = (job.locale or "").lower().replace("_", "-").split("-")
        variants = [
            f"{job.template}/{'-'.join(tags[:length])}" for length in range(len(tags), 0, -1)
        ]
        for folder in [*variants, job.template]:
            if self._exists(f"{folder}/{FILES[0]}"):
                return folder.rstrip("/")
        known = sorted(
            {name.partition("/")[0] for name in self._environment.list_templates() if "/" in name}
        )
        near = difflib.get_close_matches(job.template, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise Fail(f"no email template is named {job.template!r}: {hint}")

    def _exists(self, name: str) -> bool:
        try:
            self._environment.get_template(name)
        except TemplateNotFound:
            return False
        except (TemplateError, UnicodeDecodeError):
            return True  # broken: rendering it fails the job and names the line
        return True

    def _render_file(self, name: str, job: EmailJob) -> str:
        try:
            return self._environment.get_template(name).render(job.variables)
        except UndefinedError as error:
            raise Fail(
                f"template {name!r} needs a variable that the job does not have: {error.message}"
            ) from error
        except TemplateSyntaxError as error:
            raise Fail(
                f"template {error.name or name!r} is broken in line {error.lineno}: {error.message}"
            ) from error
        except TemplateNotFound as error:
            raise Fail(
                f"template {name!r} needs a file that does not exist: {error.message}"
            ) from error
        except TemplateError as error:
            raise Fail(f"template {name!r} cannot be rendered: {error.message}") from error
        except (OSError, MemoryError):  # another time it may go well
            raise
        except (
            Exception
        ) as error:  # what its expressions raise: TypeError, ZeroDivisionError, UnicodeDecodeError
            raise Fail(
                f"template {name!r} cannot be rendered: {type(error).__name__}: {error}"
            ) from error
