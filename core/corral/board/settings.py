"""Whether there is a board at all, and who may reach it: `CORRAL_BOARD_…`, and one exact rule."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from corral.board.passwords import Digest
from corral.errors import ConfigurationError
from corral.queue_settings import QueueSettings
from corral.settings import Settings

__all__ = ["BoardSettings", "environment_of", "is_on"]

ALIAS: Final = "BULL_BOARD_ENABLED"
"""The name under which the flag was known before."""
WORDS: Final = {"true": True, "1": True, "false": False, "0": False}
HOST: Final = re.compile(r"[a-z0-9_][a-z0-9._-]{0,252}")
SHORTEST_TOKEN: Final = 32
"""Characters: a token is made by a program, and nothing counts how often one is tried."""


class BoardSettings(QueueSettings):
    """The settings of the board."""

    model_config = SettingsConfigDict(env_prefix="CORRAL_BOARD_")

    enabled: bool | None = Field(default=None, validate_default=True)
    """`true` or `1`, `false` or `0`, and no other word; None where it is not set."""

    password: SecretStr | None = None
    """What `corral board --hash-password` printed: the scrypt digest of the administrator's
    password.
    """

    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """The host names under which the board answers, separated by commas, beside those of the
    loopback interface.
    """

    proxy: Annotated[tuple[str, ...], NoDecode] = ()
    """The addresses or networks of the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are
    believed.
    """

    metrics_token: SecretStr | None = None
    """Lets a scraper read `/metrics` with `Authorization: Bearer …`."""

    @property
    def digest(self) -> Digest | None:
        """The password's digest."""
        return None if self.password is None else Digest.parsed(self.password.get_secret_value())

    @field_validator("enabled", mode="before")
    @classmethod
    def _is_a_word(cls, value: object) -> bool | None:
        """The flag, or what its older name says; a wrong word would be silently on, or silently
        off.
        """
        given = [word for word in (value, os.environ.get(ALIAS)) if word not in {None, ""}]
        if not all(word in WORDS for word in given):
            raise ValueError(
                f"write true or 1 for on, false or 0 for off (and so for {ALIAS}, its older name)"
            )
        meant = {WORDS[str(word)] for word in given}
        if len(meant) > 1:
            raise ValueError(f"its older name {ALIAS} says the opposite: set one of them")
        return meant.pop() if meant else None

    @field_validator("password")
    @classmethod
    def _is_a_digest(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                Digest.parsed(value.get_secret_value())
            except ValueError as error:
                raise ValueError(
                    f"{error}: write what `corral board --hash-password` prints, never the password itself"
                ) from None
        return value

    @field_validator("metrics_token")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (
            len(value.get_secret_value()) >= SHORTEST_TOKEN and value.get_secret_value().isascii()
        ):
            raise ValueError(f"a token has at least {SHORTEST_TOKEN} characters of ASCII")
        return value

    @field_validator("hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(filter(None, (name.strip().lower() for name in value.split(","))))
        if not all(HOST.fullmatch(name) or _is_ipv6(name) for name in names):
            raise ValueError(
                "write host names alone, separated by commas: no scheme, no port, no *"
            )
        return names

    @field_validator("proxy", mode="before")
    @classmethod
    def _are_networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            networks = [
                ipaddress.ip_network(part.strip()) for part in value.split(",") if part.strip()
            ]
        except ValueError:
            networks = None
        if networks is None or not all(network.prefixlen for network in networks):
            raise ValueError(
                "write the proxy's address, 10.0.0.7, or its network, 10.0.0.0/24; several are separated by commas,"
                " and whoever is in one of them may give any address as the client's"
            )
        return tuple(str(network) for network in networks)


def _is_ipv6(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).version == 6
    except ValueError:
        return False


def environment_of(settings: Settings, *, implied: bool) -> str:
    """`CORRAL_ENV`; where it does not say and development is implied, as by `corral dev`, that."""
    return "development" if implied and not settings.is_environment_set else settings.env


def is_on(environment: str, flag: bool | None, *, has_authenticator: bool) -> bool:
    """Whether the board answers.

    Args:
        environment: `CORRAL_ENV`; whatever is not exactly `development` is production.
        flag: `CORRAL_BOARD_ENABLED`; None where it is not set.
        has_authenticator: Whether anything knows who makes a request.

    Raises:
        ConfigurationError: The board would be on, with nobody asked who they are. In development it
            is on: whoever reads the terminal logs in with a link that is good once.
    """
    is_development = environment == "development"
    on = is_development if flag is None else flag
    if on and not has_authenticator and not is_development:
        raise ConfigurationError(
            "the board is switched on and nobody is asked who they are",
            hint="set CORRAL_BOARD_PASSWORD (corral board --hash-password makes one), or mount it with authorize=…",
        )
    return on
