"""Whether there is a board at all, and who may reach it: `CORRAL_BOARD_…`, and one exact rule."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from corral.errors import ConfigurationError
from corral.queue_settings import QueueSettings

__all__ = ["BoardSettings", "is_on"]

ON: Final = frozenset({"true", "1"})
OFF: Final = frozenset({"false", "0"})


class BoardSettings(QueueSettings):
    """The settings of the board."""

    model_config = SettingsConfigDict(env_prefix="CORRAL_BOARD_")

    enabled: str | None = Field(
        default=None, validation_alias=AliasChoices("CORRAL_BOARD_ENABLED", "BULL_BOARD_ENABLED")
    )
    """`true` or `1`, `false` or `0`; without it the board is on where `CORRAL_ENV` is exactly `development`."""

    password: SecretStr | None = None
    """What `corral board --hash-password` printed: the scrypt digest of the administrator's password."""

    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """The host names under which the board answers, separated by commas, beside those of the loopback interface."""

    metrics_token: SecretStr | None = None
    """Lets a scraper read `/metrics` with `Authorization: Bearer …`."""

    @field_validator("hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


def is_on(environment: str, flag: str | None, *, has_authenticator: bool) -> bool:
    """Whether the board answers.

    Args:
        environment: `CORRAL_ENV`; whatever is not exactly `development` is production.
        flag: `CORRAL_BOARD_ENABLED`; None or empty where it is not set.
        has_authenticator: Whether anything knows who makes a request.

    Raises:
        ConfigurationError: The flag is neither of the four words, or the board would be open to everybody.
    """
    if flag and flag not in ON | OFF:
        raise ConfigurationError(
            f"CORRAL_BOARD_ENABLED: {flag!r} is neither on nor off", hint="write true or 1, false or 0"
        )
    is_development = environment == "development"
    on = flag in ON if flag else is_development
    if on and not has_authenticator and not is_development:
        raise ConfigurationError(
            "the board is switched on and nobody is asked who they are",
            hint="set CORRAL_BOARD_PASSWORD (corral board --hash-password makes one), or mount it with authorize=…",
        )
    return on
