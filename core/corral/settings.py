"""What the environment says: read once by the composition root, checked as a whole, then passed on
and never changed.

It knows the names, bounds and defaults of the core's settings, and by prefix only which names
belong to plugins. It must not know how any of them is used.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Secret,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from corral.errors import ConfigurationError
from corral.job import KEEP_LOGS
from corral.payload import MAX_PAYLOAD_BYTES
from corral.redactor import masked

__all__ = ["SecretUrl", "Settings", "WorkerSettings", "unknown_names"]

PREFIX = "CORRAL_"
NESTED = "__"
WORKER = f"{PREFIX}WORKER{NESTED}"
PARTS = ("BOARD",)
"""Parts of Corral that read settings of their own, `CORRAL_BOARD_…`, and check them when they
start.
"""
STORE_SCHEMES = ("redis", "rediss", "unix")
LONGEST_SECONDS = 86_400.0
"""A lock or an interval of more than a day is a wrong unit, and would keep a dead worker's jobs for
that long.
"""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class SecretUrl(Secret[str]):
    """A URL whose password is seen only by whoever asks for `get_secret_value()`."""

    def _display(self) -> str:
        return masked(self.get_secret_value())


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class WorkerSettings(BaseModel):
    """The settings of a worker, `CORRAL_WORKER__…`."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    concurrency: int = Field(default=10, ge=1)
    """How many jobs of one queue run at once, where the queue does not say."""

    lock_seconds: Seconds = 30.0
    """How long a job's lock outlives a worker that no longer renews it."""

    stalled_interval_seconds: Seconds = 30.0
    """How often jobs are looked for whose worker is gone."""

    max_stalled: int = Field(default=1, ge=0)
    """How often a job may be found so before it is failed for good."""

    shutdown_timeout_seconds: float = Field(
        default=25.0, ge=0, le=LONGEST_SECONDS, allow_inf_nan=False
    )
    """How long running jobs may take to finish after SIGTERM, before they are handed back."""

    keep_logs: int = Field(default=KEEP_LOGS, ge=1)
    """How many log lines a job keeps, the last ones, where its own `keepLogs` does not say."""

    event_loop: Annotated[Literal["asyncio", "uvloop"], BeforeValidator(_lower)] = "asyncio"
    """What runs the worker's coroutines: Python's own event loop, or that of the extra `uvloop`."""


class Settings(BaseSettings):
    """The settings of one process.

    Immutable; make it with `Settings.read`, which tells all faults at once.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    redis_url: SecretUrl | None = Field(
        default=None, validation_alias="redis_url"
    )  # an alias is read without prefix
    """The store: `redis://`, `rediss://` or `unix://`."""

    env: str = "production"
    """Any word; only exactly `development` opens development defaults."""

    prefix: str = Field(default="bull", pattern=r"^[!-~]+$")
    """What the keys of all queues begin with: BullMQ's own default.

    No blanks: it is part of a connection's name.
    """

    data_dir: Path = Path(".corral")
    """Where an embedded store keeps its files."""

    app: str | None = None
    """The application's module, loaded after all plugins."""

    disabled_plugins: Annotated[tuple[str, ...], NoDecode] = ()
    """Distributions or entry points that are not loaded; separated by commas."""

    lock: Path | None = None
    """The lock file, instead of `corral.lock` in the working directory."""

    locked: bool = False
    """Whether a start without a lock file is refused."""

    lock_patches: Annotated[Literal["refuse", "allow"], BeforeValidator(_lower)] = "refuse"
    """What becomes of a patch release of what is locked, whose payloads have not changed."""

    database_url: SecretUrl | None = None
    """The SQL database, as SQLAlchemy writes it."""

    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)] = "auto"
    """`auto` is `console` on a terminal, else `json`."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper)] = (
        "INFO"
    )

    log_processors: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """`module:name` of a list of structlog processors that every log line passes before it is
    masked and rendered.
    """

    max_payload_bytes: int = Field(default=MAX_PAYLOAD_BYTES, ge=1)
    """A job with a larger payload is refused when it is enqueued."""

    valkey_server: str | None = None
    """The server program of the embedded store, instead of the one that would be found."""

    worker: Annotated[WorkerSettings, NoDecode] = WorkerSettings()

    @property
    def is_development(self) -> bool:
        """Whether development defaults hold."""
        return self.env == "development"

    @property
    def is_environment_set(self) -> bool:
        """Whether `CORRAL_ENV` was set at all: without it a process is of production, but nobody
        said so.
        """
        return "env" in self.model_fields_set

    @property
    def database_file(self) -> Path:
        """The SQLite file that is the database where none is named."""
        return self.data_dir / "corral.db"

    @property
    def effective_database_url(self) -> SecretUrl:
        """`database_url`, or the SQLite file's."""
        return self.database_url or SecretUrl(f"sqlite+aiosqlite:///{self.database_file}")

    @field_validator("disabled_plugins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return (
            tuple(filter(None, map(str.strip, value.split(","))))
            if isinstance(value, str)
            else value
        )

    @field_validator("redis_url")
    @classmethod
    def _is_a_store(cls, value: SecretUrl | None) -> SecretUrl | None:
        if value is not None:
            try:
                parts = urlsplit(value.get_secret_value())
                _ = None if parts.scheme == "unix" else parts.port
            except ValueError:  # its text may hold what was meant as a password
                raise ValueError(
                    "this is no URL, or its port is not a number from 0 to 65535"
                ) from None
            if parts.scheme not in STORE_SCHEMES:
                raise ValueError("write redis://host:6379/0, rediss://… or unix:///path/to.sock")
        return value

    @classmethod
    def read(cls, queue_names: Collection[str] | None = ()) -> Settings:
        """Read the settings from the process's environment.

        Args:
            queue_names: The names of all installed entry points: each explains the names under
                `CORRAL_<NAME>_`. None for whoever does not look them up: no name is unknown then.

        Raises:
            ConfigurationError: A value cannot be used or a name means nothing; it names all of
            them.
        """
        unknown = {} if queue_names is None else unknown_names(os.environ, queue_names)
        faults = [_unknown(name, meant) for name, meant in unknown.items()]
        try:
            settings = cls()
        except ValidationError as error:
            wrong = {_name(fault["loc"]): fault for fault in error.errors(include_url=False)}
            faults += [
                f"{name}: {_told(name, fault)}"
                for name, fault in wrong.items()
                if name not in unknown
            ]
        else:
            if not faults:
                return settings
        if len(faults) == 1:
            raise ConfigurationError(faults[0]) from None
        raise ConfigurationError(
            f"the settings were refused: {len(faults)} problems\n  " + "\n  ".join(faults)
        ) from None


def unknown_names(
    environ: Mapping[str, str], queue_names: Collection[str]
) -> dict[str, str | None]:
    """Find the `CORRAL_` names that mean nothing: most likely misspelt, and silently without
    effect.

    Args:
        environ: The environment.
        queue_names: The names of all installed entry points; `webhooks-outgoing` explains all names
            under `CORRAL_WEBHOOKS_OUTGOING_`.

    Returns:
        Each unknown name, in order, with the name that was probably meant.
    """
    known = _core_names()
    plugins = [
        f"{PREFIX}{name.upper().replace('-', '_')}_" for name in (*PARTS, *sorted(queue_names))
    ]
    unknown: dict[str, str | None] = {}
    for name in sorted(environ):
        plain = name.upper()
        if not plain.startswith(PREFIX) or plain in known:
            continue
        head = WORKER if plain.startswith(WORKER) else PREFIX
        if head == PREFIX and plain.startswith(tuple(plugins)):
            continue
        meant = {full.removeprefix(head): full for full in [*known, *_of_plugins(plain, plugins)]}
        close = difflib.get_close_matches(plain.removeprefix(head), meant, n=1)
        unknown[name] = meant[close[0]] if close else None
    return unknown


def _of_plugins(name: str, plugins: list[str]) -> Iterator[str]:
    """What a name would be under the prefixes of those plugins that look like its first words."""
    words = name.split("_")
    for plugin in plugins:
        length = plugin.count("_")
        head, tail = "_".join(words[1:length]), "_".join(words[length:])
        if tail and difflib.get_close_matches(f"{head}_", [plugin.removeprefix(PREFIX)]):
            yield plugin + tail


def _core_names() -> list[str]:
    nested = [WORKER + field.upper() for field in WorkerSettings.model_fields]
    return [_name((field,)) for field in Settings.model_fields if field != "worker"] + nested


def _name(where: tuple[int | str, ...]) -> str:
    """The environment's name for a field that pydantic names by its path."""
    words = [word.upper() for word in where if isinstance(word, str)]
    return words[0] if words[0] == "REDIS_URL" else PREFIX + NESTED.join(words)


def _unknown(name: str, meant: str | None) -> str:
    if meant:
        return f"{name} is not a setting; did you mean {meant}?"
    return f"{name} is not a setting of Corral or of an installed plugin"


def _told(name: str, fault: Any) -> str:
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return message if name.endswith("_URL") else f"{message}, not {fault['input']!r}"
