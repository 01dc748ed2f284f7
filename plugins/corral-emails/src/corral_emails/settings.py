"""Where mail goes and whom it comes from: the `CORRAL_EMAILS_…` environment.

Without any setting, mail is handed to a server on this machine, port 25. Another host brings the
rules of the open network with it: STARTTLS unless said otherwise, a sender of its own, and no
password in clear text.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import DirectoryPath, Field, NameEmail, SecretStr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict

from corral import PluginSettings
from corral_emails.ehlo import EHLO_NAME

__all__ = ["EmailSettings"]

PREFIX = "CORRAL_EMAILS_"

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

LOCAL_SENDER = NameEmail(name="no-reply", email="no-reply@localhost")
"""Good enough for a server on this machine; nobody else would take it."""

PORTS = {"none": 25, "starttls": 587, "implicit": 465}
"""The ports that RFC 5321, 6409 and 8314 name for each TLS mode."""


class EmailSettings(PluginSettings):
    """The settings of `emails`.

    Attributes:
        host: The SMTP server.
        port: Its port; by default 25, 587 or 465, as `tls` has it.
        tls: `none`, `starttls` (required, not merely tried) or `implicit`; by default `starttls`,
            and `none` for a server on this machine.
        username: Whom to log in as, or None for no login.
        password: The password that goes with it.
        sender: The From address: `no-reply@acme.example` or `Acme <no-reply@acme.example>`.
        timeout_seconds: How long one step of the conversation may take.
        connections: How many connections a worker process has at most, each for one mail at a
            time. It opens no more than it has jobs running.
        ehlo_name: The name that the server is greeted with: a domain name, or an address literal.
            None for the host's fully qualified name if it has one, else the address of our end of
            the connection.
        templates_dir: A folder of your own templates; looked at before the shipped ones.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    host: str = "localhost"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["none", "starttls", "implicit"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    sender: NameEmail = LOCAL_SENDER
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    connections: Annotated[int, Field(ge=1, le=1000)] = 10
    ehlo_name: Annotated[str, Field(pattern=EHLO_NAME, max_length=255)] | None = None
    templates_dir: DirectoryPath | None = None

    @property
    def tls_mode(self) -> Literal["none", "starttls", "implicit"]:
        """`tls`, or what the host asks for."""
        return self.tls or ("none" if self.host in LOOPBACK else "starttls")

    @property
    def effective_port(self) -> int:
        """`port`, or what the TLS mode asks for."""
        return self.port or PORTS[self.tls_mode]

    @model_validator(mode="after")
    def _what_belongs_together(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise PydanticCustomError(
                "login", "CORRAL_EMAILS_USERNAME and CORRAL_EMAILS_PASSWORD: one without the other"
            )
        if self.host in LOOPBACK:
            return self
        if "sender" not in self.model_fields_set:
            raise PydanticCustomError(
                "sender", "CORRAL_EMAILS_SENDER: needed where CORRAL_EMAILS_HOST is another machine"
            )
        if self.username is not None and self.tls_mode == "none":
            raise PydanticCustomError(
                "tls", "CORRAL_EMAILS_TLS: 'none' would send the password in clear text"
            )
        return self
