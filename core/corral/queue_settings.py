"""`QueueSettings`: what a plugin's own settings are made of.

They are the `CORRAL_<QUEUE>_…` of the environment.

A worker asks for them when it opens what its processors need. It does not start with settings that
cannot be used, and says everything that is wrong with them at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Self

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from corral.errors import ConfigurationError

__all__ = ["QueueSettings"]


class QueueSettings(BaseSettings):
    """The settings of one queue: a pydantic model, frozen, whose fields are read from the
    environment.

    ```python
    class ReportSettings(QueueSettings):
        model_config = SettingsConfigDict(env_prefix="CORRAL_REPORT_EXPORTS_")

        folder: DirectoryPath
        timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    ```

    An empty variable is one that is not set. The core refuses what begins with no installed queue's
    name; what begins with this one's is checked here.
    """

    model_config = SettingsConfigDict(env_ignore_empty=True, frozen=True, extra="ignore")

    @classmethod
    def from_environment(cls) -> Self:
        """The settings of this process.

        Raises:
            ConfigurationError: Some are missing, misspelt or of no use; it names all of them, and
                no value: what is wrong may be a password in the wrong place.
        """
        faults = list(cls._misspelt())
        try:
            settings = cls()
        except ValidationError as error:
            faults += map(cls._told, error.errors(include_url=False, include_input=False))
        except ValueError as error:  # a list or a dictionary that is no JSON: its text names the field, and no value
            faults.append(str(error))
        else:
            if not faults:
                return settings
        queue = cls._prefix().removeprefix("CORRAL_").rstrip("_").lower().replace("_", "-")
        raise ConfigurationError("\n  ".join([f"the settings of {queue} were refused:", *faults]))

    @classmethod
    def _prefix(cls) -> str:
        return cls.model_config.get("env_prefix", "")

    @classmethod
    def _misspelt(cls) -> Iterator[str]:
        known = [name.upper() for name in cls.model_fields]
        of_others = tuple(cls._longer_prefixes())
        for name in sorted(os.environ):
            if name.upper().startswith(of_others):
                continue
            prefix, own = name.upper()[: len(cls._prefix())], name.upper()[len(cls._prefix()) :]
            if prefix == cls._prefix() and own not in known:
                near = difflib.get_close_matches(own, known, n=1)
                yield f"{name} is not a setting" + (
                    f"; did you mean {prefix}{near[0]}?" if near else ""
                )

    @classmethod
    def _longer_prefixes(cls) -> Iterator[str]:
        """Of other queues whose names begin with this one's: `CORRAL_REPORTS_DAILY_…` is not for
        `reports`.
        """
        for queue in entry_points(group="corral.queues"):
            prefix = f"CORRAL_{queue.name.upper().replace('-', '_')}_"
            if prefix != cls._prefix() and prefix.startswith(cls._prefix()):
                yield prefix

    @classmethod
    def _told(cls, fault: ErrorDetails) -> str:
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:  # of several settings together: it names them itself
            return message
        return f"{cls._prefix()}{str(fault['loc'][0]).upper()}: {message[:1].lower()}{message[1:]}"
