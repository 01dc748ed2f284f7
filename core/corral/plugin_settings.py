"""`PluginSettings`: the base class of a plugin's settings, the `CORRAL_<QUEUE>_…` variables.

The board's settings use it, too. It knows the environment and pydantic, and nothing of the core's
own settings: those are in `corral.settings`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from corral.errors import ConfigurationError
from corral.field_errors import FieldError, field_errors
from corral.secret_files import file_variables, read_secret_files, variable_name

__all__ = ["PluginSettings", "find_problems"]

GROUPS: Final = ("corral.queues", "corral.plugins")


class PluginSettings(BaseSettings):
    """The settings of one plugin: a frozen pydantic model, read from the environment.

    ```python
    from pathlib import Path
    from typing import Annotated

    from pydantic import Field, SecretStr
    from pydantic_settings import SettingsConfigDict

    from corral import PluginSettings


    class ReportSettings(PluginSettings):
        model_config = SettingsConfigDict(env_prefix="CORRAL_REPORT_EXPORTS_")

        folder: Path = Path("exports")
        timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
        password: SecretStr | None = None


    settings = ReportSettings()
    ```

    The prefix is the plugin's entry point in capital letters, with `_` for `-`. Return the class
    from the hook `corral_settings`: then every start refuses misspelt names below the prefix, and
    `corral check` also refuses values that cannot be used.

    An empty variable counts as not set. A field of type `SecretStr`, `SecretBytes` or `Secret[…]`
    can stand in a file instead: `CORRAL_REPORT_EXPORTS_PASSWORD_FILE` names it, and a newline at
    its end is left out.

    Args:
        values: Fields by name. They win over the environment, as in tests.

    Raises:
        ConfigurationError: Settings are missing, misspelt or unusable. The message names all of
            them and quotes no value: a wrong one may be a password in the wrong place.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    def __init__(self, **values: Any) -> None:
        problems = [problem for problem, _ in _fill(self, values)]
        if problems:
            owner = _prefix(type(self)).removeprefix("CORRAL_").strip("_").lower().replace("_", "-")
            lines = [f"the settings of {owner} were refused:", *problems]
            raise ConfigurationError("\n  ".join(lines))


def _fill(settings: PluginSettings, values: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Fill the fields; return all problems, each with whether it is a missing variable."""
    kind = type(settings)
    files = read_secret_files(kind, os.environ)
    problems = [(text, False) for text in (*_unknown(kind), *files.problems.values())]
    filled: dict[str, Any] = {**files.values, **values}
    try:
        BaseSettings.__init__(settings, **filled)
    except ValidationError as error:
        problems += [
            (_sentence(kind, each), each.type == "missing")
            for each in field_errors(error)
            if each.path not in files.problems
            and (each.location or not files.problems)  # consequences of a missing secret
        ]
    except ValueError as error:
        # A list or a mapping that is not JSON: pydantic-settings names the field, and no value.
        problems.append((str(error), False))
    return problems


def find_problems(settings: type[PluginSettings], *, values: bool) -> list[str]:
    """Find what is wrong with the variables of a plugin, without building its settings.

    Required variables that are missing are no problem here: `corral check` runs where an image is
    built, and a producer does not need what a worker needs.

    Args:
        settings: The plugin's settings.
        values: Whether to judge the values, too; otherwise only the names.

    Returns:
        One sentence for each problem.
    """
    if not values:
        return [*_unknown(settings)]
    loaded = _fill(settings.__new__(settings), {})
    return [problem for problem, is_missing in loaded if not is_missing]


def _prefix(settings: type[PluginSettings]) -> str:
    return settings.model_config.get("env_prefix", "").upper()


def _sentence(settings: type[PluginSettings], error: FieldError) -> str:
    name = str(error.location[0]) if error.location else ""
    if name in settings.model_fields:
        name = variable_name(settings, name)
    return error.sentence(name.upper())


def _unknown(settings: type[PluginSettings]) -> Iterator[str]:
    """One sentence for each variable below the prefix that no field reads."""
    prefix = _prefix(settings)
    if not prefix:  # every variable of the process would be an unknown one
        return
    fields = [variable_name(settings, name) for name in settings.model_fields]
    known = [*fields, *file_variables(settings).values()]
    delimiter = settings.model_config.get("env_nested_delimiter")
    nested = tuple(f"{name}{delimiter}".upper() for name in fields) if delimiter else ()
    unread = {
        name: upper
        for name, upper in ((each, each.upper()) for each in sorted(os.environ))
        if upper.startswith(prefix) and not upper.startswith(nested) and upper not in known
    }
    # Looked up last, and only for such names: it reads the metadata of everything installed.
    of_others = tuple(_longer_prefixes(prefix)) if unread else ()
    for name, upper in unread.items():
        if not upper.startswith(of_others):
            meant = _nearest(upper.removeprefix(prefix), [each[len(prefix) :] for each in known])
            yield f"{name} is not a setting" + (f"; did you mean {prefix}{meant}?" if meant else "")


def _nearest(name: str, known: list[str]) -> str | None:
    """The known name that is most like this one, or like its last words: `SMTP_HOTS` is `HOST`."""
    words = name.split("_")
    for first in range(len(words)):
        near = difflib.get_close_matches("_".join(words[first:]), known, n=1)
        if near:
            return near[0]
    return None


def _longer_prefixes(prefix: str) -> Iterator[str]:
    """Prefixes of installed plugins whose names begin with this one's.

    `CORRAL_REPORTS_DAILY_…` belongs to the queue `reports-daily`, and not to `reports`.
    """
    for group in GROUPS:
        for entry_point in entry_points(group=group):
            other = f"CORRAL_{entry_point.name.upper().replace('-', '_')}_"
            if other != prefix and other.startswith(prefix):
                yield other
