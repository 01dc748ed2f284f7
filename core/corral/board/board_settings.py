"""`BoardSettings`: the variables `CORRAL_BOARD_…`, and the rule that switches the board on."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from corral.board.passwords import PasswordDigest
from corral.errors import ConfigurationError
from corral.plugin_settings import PluginSettings
from corral.settings import Settings

__all__ = ["BoardSettings", "is_board_on", "resolve_environment"]

ALIAS: Final = "BULL_BOARD_ENABLED"
"""The older name of `CORRAL_BOARD_ENABLED`, from the time of Bull Board."""
FLAG_WORDS: Final = {"true": True, "1": True, "false": False, "0": False}
HOST_NAME: Final = re.compile(r"[a-z0-9_][a-z0-9._-]{0,252}")
MIN_TOKEN: Final = 32
"""Characters of the metrics token: attempts at it are not counted, so it must not be guessable."""


class BoardSettings(PluginSettings):
    """The settings of the board."""

    model_config = SettingsConfigDict(env_prefix="CORRAL_BOARD_")

    enabled: bool | None = Field(default=None, validate_default=True)
    """`true` or `1` for on, `false` or `0` for off, and no other word; None where it is not set."""

    password: SecretStr | None = None
    """The administrator's password, as `corral board --hash-password` prints it (a digest)."""

    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """The host names under which the board answers, separated by commas.

    Those of the loopback interface are always accepted.
    """

    proxy: Annotated[tuple[str, ...], NoDecode] = ()
    """The addresses or networks of trusted proxies, separated by commas.

    `X-Forwarded-For` and `X-Forwarded-Proto` are accepted from them only.
    """

    metrics_token: SecretStr | None = None
    """Lets a scraper read `/metrics` with `Authorization: Bearer …`."""

    @property
    def digest(self) -> PasswordDigest | None:
        """The password's digest, or None where no password is set."""
        if self.password is None:
            return None
        return PasswordDigest.parsed(self.password.get_secret_value())

    @field_validator("enabled", mode="before")
    @classmethod
    def _read_flag(cls, value: object) -> bool | None:
        """The flag under either of its names.

        Any other word is refused: it would silently mean on, or silently off.
        """
        given = [word for word in (value, os.environ.get(ALIAS)) if word not in {None, ""}]
        if not all(word in FLAG_WORDS for word in given):
            raise ValueError(
                f"write true or 1 for on, false or 0 for off (and so for {ALIAS}, its older name)"
            )
        meant = {FLAG_WORDS[str(word)] for word in given}
        if len(meant) > 1:
            raise ValueError(f"its older name {ALIAS} says the opposite: set one of them")
        return meant.pop() if meant else None

    @field_validator("password")
    @classmethod
    def _check_password(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                PasswordDigest.parsed(value.get_secret_value())
            except ValueError as error:
                raise ValueError(
                    f"{error}: write what `corral board --hash-password` prints,"
                    " never the password itself"
                ) from None
        return value

    @field_validator("metrics_token")
    @classmethod
    def _check_metrics_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not (
            len(value.get_secret_value()) >= MIN_TOKEN and value.get_secret_value().isascii()
        ):
            raise ValueError(f"a token has at least {MIN_TOKEN} characters of ASCII")
        return value

    @field_validator("hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(filter(None, (name.strip().lower() for name in value.split(","))))
        if not all(HOST_NAME.fullmatch(name) or _is_ipv6(name) for name in names):
            raise ValueError(
                "write host names alone, separated by commas: no scheme, no port, no *"
            )
        return names

    @field_validator("proxy", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
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
                "write the proxy's address, 10.0.0.7, or its network, 10.0.0.0/24;"
                " several are separated by commas. A machine in one of these networks can name any"
                " address as the client's"
            )
        return tuple(str(network) for network in networks)


def _is_ipv6(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).version == 6
    except ValueError:
        return False


def resolve_environment(settings: Settings, *, implied: bool) -> str:
    """The environment's name, `CORRAL_ENV`.

    Args:
        settings: The process's settings.
        implied: Whether it is `development` where `CORRAL_ENV` is not set, as for `corral dev`.
    """
    return "development" if implied and not settings.is_environment_set else settings.env


def is_board_on(environment: str, flag: bool | None, *, has_authenticator: bool) -> bool:
    """Whether the board answers requests.

    Args:
        environment: `CORRAL_ENV`; every value but exactly `development` counts as production.
        flag: `CORRAL_BOARD_ENABLED`; None where it is not set.
        has_authenticator: Whether anything can tell who sends a request.

    Raises:
        ConfigurationError: The board would be on and would let everybody in. In development it is
            allowed: there a login link is logged, for the person who reads the terminal.
    """
    is_development = environment == "development"
    is_on = is_development if flag is None else flag
    if is_on and not has_authenticator and not is_development:
        raise ConfigurationError(
            "the board is switched on, but nothing checks who uses it",
            hint="set CORRAL_BOARD_PASSWORD (corral board --hash-password makes one),"
            " or mount it with authorize=…",
        )
    return is_on
