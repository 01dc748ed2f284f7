"""Where mail goes and whom it comes from: the `CORRAL_EMAILS_…` environment.

Without any setting, mail is handed to a server on this machine, port 25. Another host brings the rules of the open
network with it: STARTTLS unless said otherwise, a sender of its own, and no password in clear text.
"""

from __future__ import annotations

import difflib
import os
from typing import Annotated, Literal, Self

from pydantic import DirectoryPath, Field, NameEmail, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from corral.errors import ConfigurationError

__all__ = ["EmailSettings"]

PREFIX = "CORRAL_EMAILS_"

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

LOCAL_SENDER = NameEmail(name="no-reply", email="no-reply@localhost")
"""Good enough for a server on this machine; nobody else would take it."""

PORTS = {"none": 25, "starttls": 587, "implicit": 465}
"""The ports that RFC 5321, 6409 and 8314 name for each TLS mode."""


class EmailSettings(BaseSettings):
    """The settings of `emails`.

    Attributes:
        host: The SMTP server.
        port: Its port; by default 25, 587 or 465, as `tls` has it.
        tls: `none`, `starttls` (required, not merely tried) or `implicit`; by default `starttls`, and `none` for a
            server on this machine.
        username: Whom to log in as, or None for no login.
        password: The password that goes with it.
        sender: The From address: `no-reply@acme.example` or `Acme <no-reply@acme.example>`.
        timeout_seconds: How long one step of the conversation may take.
        templates_dir: A folder of your own templates; looked at before the shipped ones.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    host: str = "localhost"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    tls: Literal["none", "starttls", "implicit"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    sender: NameEmail = LOCAL_SENDER
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
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
            raise PydanticCustomError("tls", "CORRAL_EMAILS_TLS: 'none' would send the password in clear text")
        return self

    @classmethod
    def from_environment(cls) -> EmailSettings:
        """The settings of this process.

        Raises:
            ConfigurationError: Settings that are missing, misspelt or of no use; it names all of them.
        """
        known = [f"{PREFIX}{name.upper()}" for name in cls.model_fields]
        faults: list[str] = []
        for name in sorted(os.environ):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1)
                faults.append(f"{name} is not a setting of emails" + (f"; did you mean {near[0]}?" if near else ""))
        try:
            settings = cls()
        except ValidationError as error:
            faults += [_told(fault) for fault in error.errors(include_url=False, include_input=False)]
        else:
            if not faults:
                return settings
        raise ConfigurationError("\n  ".join(["the settings of emails were refused:", *faults]))


def _told(fault: ErrorDetails) -> str:
    """One fault; what was set is not repeated, for it may be a password in the wrong place."""
    message = fault["msg"]
    return f"{PREFIX}{str(fault['loc'][0]).upper()}: {message[:1].lower()}{message[1:]}" if fault["loc"] else message
