"""The core's settings: read once from the environment, checked as a whole, and never changed.

This module knows the names, bounds and defaults of the core's settings. Of plugins' variables it
knows only the prefixes. It must not know how a setting is used.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from corral.field_errors import FieldError, field_errors
from corral.job import KEEP_LOGS
from corral.payload import MAX_PAYLOAD_BYTES
from corral.redactor import masked
from corral.secret_files import file_variables, is_secret, read_secret_files, variable_name

__all__ = [
    "SecretUrl",
    "Settings",
    "WorkerSettings",
    "build_settings_error",
    "has_plugin_variables",
    "unknown_names",
]

PREFIX = "CORRAL_"
NESTED = "__"
WORKER = f"{PREFIX}WORKER{NESTED}"
PARTS = ("BOARD",)
"""Parts of Corral that have settings of their own, `CORRAL_BOARD_…`, and check them."""
STORE_SCHEMES = ("redis", "rediss", "unix")
LONGEST_SECONDS = 86_400.0
"""A lock or an interval of more than a day is probably in a wrong unit, and would keep the jobs of
a dead worker for as long.
"""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class SecretUrl(Secret[str]):
    """A URL that is shown without its password; `get_secret_value()` returns it whole."""

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
    """How many jobs of one queue run at once, if the queue does not declare it."""

    lock_seconds: Seconds = 30.0
    """How long a job's lock outlives a worker that no longer renews it."""

    stalled_interval_seconds: Seconds = 30.0
    """How often a worker looks for jobs whose worker has died."""

    max_stalled: int = Field(default=1, ge=0)
    """How often a job may lose its worker before it is failed for good."""

    shutdown_timeout_seconds: float = Field(
        default=25.0, ge=0, le=LONGEST_SECONDS, allow_inf_nan=False
    )
    """How long running jobs may take to finish after SIGTERM, before they are handed back."""

    keep_logs: int = Field(default=KEEP_LOGS, ge=1)
    """How many of its last log lines a job keeps, if it has no `keepLogs` of its own."""

    event_loop: Annotated[Literal["asyncio", "uvloop"], BeforeValidator(_lower)] = "asyncio"
    """The worker's event loop: Python's own, or that of the extra `uvloop`."""


class Settings(BaseSettings):
    """The settings of one process.

    They are immutable. Read them with `Settings.read`, which reports all problems at once.
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
    """Any word. Only exactly `development` has the defaults of a development machine."""

    prefix: str = Field(default="bull", pattern=r"^[!-~]+$")
    """What the keys of all queues begin with; the default is BullMQ's.

    It has no blanks, because it is part of a connection's name.
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
    """Whether a patch release of a locked package, with unchanged payloads, may start."""

    database_url: SecretUrl | None = None
    """The URL of the SQL database, in SQLAlchemy's form."""

    log_format: Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)] = "auto"
    """`auto` is `console` on a terminal, and `json` elsewhere."""

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
        """Whether the defaults of a development machine apply."""
        return self.env == "development"

    @property
    def is_environment_set(self) -> bool:
        """Whether `CORRAL_ENV` is set; without it a process counts as production by default."""
        return "env" in self.model_fields_set

    @property
    def database_file(self) -> Path:
        """The SQLite file that is the database if `CORRAL_DATABASE_URL` is not set."""
        return self.data_dir / "corral.db"

    @property
    def effective_database_url(self) -> SecretUrl:
        """`database_url`, or the URL of the SQLite file."""
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
            queue_names: The names of all installed entry points. Variables below `CORRAL_<NAME>_`
                belong to these plugins. None if they are not known: then no name is refused.

        Raises:
            ConfigurationError: A value cannot be used, or a name is unknown. The message has all
                problems.
        """
        unknown = {} if queue_names is None else unknown_names(os.environ, queue_names)
        problems = [_sentence_about_unknown(name, meant) for name, meant in unknown.items()]
        files = read_secret_files(cls, os.environ)
        problems += files.problems.values()
        try:
            settings = cls(**files.values)  # type: ignore[arg-type]  # texts, as the environment's
        except ValidationError as error:
            wrong = {_variable(each.location): each for each in field_errors(error)}
            problems += [
                _sentence(variable, each)
                for variable, each in wrong.items()
                if variable not in unknown
            ]
        else:
            if not problems:
                return settings
        raise build_settings_error(problems)


def build_settings_error(problems: Sequence[str]) -> ConfigurationError:
    """Make the error that refuses settings: one problem stands alone, several are counted."""
    if len(problems) == 1:
        return ConfigurationError(problems[0])
    return ConfigurationError(
        f"the settings were refused: {len(problems)} problems\n  " + "\n  ".join(problems)
    )


def unknown_names(
    environ: Mapping[str, str], queue_names: Collection[str]
) -> dict[str, str | None]:
    """Find the `CORRAL_` variables that no setting reads: most likely they are misspelt.

    Args:
        environ: The environment.
        queue_names: The names of all installed entry points. All variables below
            `CORRAL_WEBHOOKS_OUTGOING_` belong to `webhooks-outgoing`.

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


def has_plugin_variables(environ: Mapping[str, str]) -> bool:
    """Whether any `CORRAL_` variable belongs to a plugin, and not to the core."""
    known = _core_names()
    return any(
        name.upper().startswith(PREFIX) and name.upper() not in known and value
        for name, value in environ.items()
    )


def _of_plugins(name: str, plugins: list[str]) -> Iterator[str]:
    """The name below the prefixes of those plugins that are similar to its first words."""
    words = name.split("_")
    for plugin in plugins:
        length = plugin.count("_")
        head, tail = "_".join(words[1:length]), "_".join(words[length:])
        if tail and difflib.get_close_matches(f"{head}_", [plugin.removeprefix(PREFIX)]):
            yield plugin + tail


def _core_names() -> list[str]:
    nested = [WORKER + field.upper() for field in WorkerSettings.model_fields]
    own = [variable_name(Settings, field) for field in Settings.model_fields if field != "worker"]
    return own + nested + [*file_variables(Settings).values()]


def _variable(location: tuple[int | str, ...]) -> str:
    """The environment variable of a field that pydantic names by its location."""
    words = [word.upper() for word in location if isinstance(word, str)]
    return words[0] if words[0] == "REDIS_URL" else PREFIX + NESTED.join(words)


def _sentence_about_unknown(name: str, meant: str | None) -> str:
    if meant:
        return f"{name} is not a setting; did you mean {meant}?"
    return f"{name} is not a setting of Corral or of an installed plugin"


def _sentence(variable: str, error: FieldError) -> str:
    sentence, field = error.sentence(variable), Settings.model_fields.get(str(error.location[0]))
    if field is not None and is_secret(field):
        return sentence
    return f"{sentence}, not {error.value!r}"
