"""How long the grace period is, and the file of configured tables: the `CORRAL_ACCOUNT_DELETIONS_…` environment."""

from __future__ import annotations

import difflib
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from corral.errors import ConfigurationError

__all__ = ["DeletionSettings"]

PREFIX = "CORRAL_ACCOUNT_DELETIONS_"


class DeletionSettings(BaseSettings):
    """The settings of `account-deletions`.

    Attributes:
        grace_days: How long a user may change their mind, where `request_deletion` is not told otherwise.
        tables: A TOML file of tables that hold users' data; see `tables_file`. A producer need not have it.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    grace_days: Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)] = 30.0
    tables: Path | None = None

    @property
    def grace(self) -> timedelta:
        """The grace period."""
        return timedelta(days=self.grace_days)

    @classmethod
    def from_environment(cls) -> DeletionSettings:
        """The settings of this process.

        Raises:
            ConfigurationError: Settings that are misspelt or of no use; it names all of them.
        """
        known = [f"{PREFIX}{name.upper()}" for name in cls.model_fields]
        faults: list[str] = []
        for name in sorted(os.environ):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                faults.append(f"{name} is not a setting of account-deletions{hint}")
        try:
            settings = cls()
        except ValidationError as error:
            faults += [_told(fault) for fault in error.errors(include_url=False, include_input=False)]
        else:
            if not faults:
                return settings
        raise ConfigurationError("\n  ".join(["the settings of account-deletions were refused:", *faults]))


def _told(fault: ErrorDetails) -> str:
    message = fault["msg"]
    return f"{PREFIX}{str(fault['loc'][0]).upper()}: {message[:1].lower()}{message[1:]}"
