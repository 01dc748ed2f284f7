"""A plugin's settings: read from the environment, and refused all at once."""

from __future__ import annotations

import traceback
from typing import Annotated, Self

import pytest
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from corral.errors import ConfigurationError
from corral.plugin_settings import PluginSettings, find_problems


class ParcelSettings(PluginSettings):
    model_config = SettingsConfigDict(env_prefix="CORRAL_LATE_PARCELS_")

    host: str
    weight: Annotated[int, Field(gt=0)] = 1
    user: str | None = None
    password: SecretStr | None = None
    depots: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.user is None) != (self.password is None):
            raise ValueError(
                "CORRAL_LATE_PARCELS_USER and CORRAL_LATE_PARCELS_PASSWORD: one without the other"
            )
        return self


def test_they_are_read_by_their_prefix_whatever_the_letters(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOST", "depot")
    monkeypatch.setenv("corral_late_parcels_weight", "3")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_USER", "")
    settings = ParcelSettings()
    assert (settings.host, settings.weight, settings.user) == ("depot", 3, None)
    with pytest.raises(ValidationError, match="frozen"):
        settings.host = "elsewhere"
    assert ParcelSettings(host="given").host == "given"


def test_all_problems_are_in_one_message_and_no_value_is(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_WEIGHT", "hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_PASWORD", "hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_COLOUR_OF_THE_BOX", "blue")
    with pytest.raises(ConfigurationError) as refused:
        ParcelSettings()
    assert str(refused.value).splitlines() == [
        "the settings of late-parcels were refused:",
        "  CORRAL_LATE_PARCELS_COLOUR_OF_THE_BOX is not a setting",
        "  CORRAL_LATE_PARCELS_PASWORD is not a setting; did you mean CORRAL_LATE_PARCELS_PASSWORD?",
        "  CORRAL_LATE_PARCELS_HOST: field required",
        "  CORRAL_LATE_PARCELS_WEIGHT: input should be a valid integer, unable to parse string as an integer",
    ]
    assert refused.value.exit_code == 2


def test_fields_that_do_not_fit_together_are_named_by_the_models_own_message(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOST", "depot")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_PASSWORD", "hunter2")
    with pytest.raises(ConfigurationError) as refused:
        ParcelSettings()
    assert str(refused.value).splitlines()[1:] == [
        "  CORRAL_LATE_PARCELS_USER and CORRAL_LATE_PARCELS_PASSWORD: one without the other"
    ]


def test_a_list_that_is_not_json_is_reported_with_the_others_without_its_value(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_DEPOTS", "hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOTS", "depot")
    with pytest.raises(ConfigurationError) as refused:
        ParcelSettings()
    _, misspelt, wrong = str(refused.value).splitlines()
    assert (
        misspelt
        == "  CORRAL_LATE_PARCELS_HOTS is not a setting; did you mean CORRAL_LATE_PARCELS_HOST?"
    )
    assert '"depots"' in wrong
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_what_belongs_to_an_installed_queue_of_a_longer_name_is_not_misspelt(
    monkeypatch, tmp_path
) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOST", "depot")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_ABROAD_HOST", "harbour")
    with pytest.raises(
        ConfigurationError, match="CORRAL_LATE_PARCELS_ABROAD_HOST is not a setting"
    ):
        ParcelSettings()
    installed = tmp_path / "abroad-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: abroad\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[corral.queues]\nlate-parcels = parcels\nlate-parcels-abroad = abroad\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert ParcelSettings().host == "depot"
    monkeypatch.setenv("CORRAL_LATE_PARCELS_ABROAT_HOST", "harbour")
    with pytest.raises(
        ConfigurationError, match="CORRAL_LATE_PARCELS_ABROAT_HOST is not a setting"
    ):
        ParcelSettings()


# --- secrets in files


@pytest.fixture
def secret(monkeypatch, tmp_path):
    """A file with a password, named by the environment."""
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOST", "depot")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_USER", "ada")
    file = tmp_path / "password"
    monkeypatch.setenv("corral_late_parcels_password_file", str(file))
    return file


def refusal() -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        ParcelSettings()
    trace = "".join(traceback.format_exception(refused.value))
    assert "hunter2" not in trace
    return [line.strip() for line in str(refused.value).splitlines()[1:]]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b" hunter2 \n\n", " hunter2 \n"),
        ("hünter2".encode(), "hünter2"),
    ],
)
def test_a_secret_can_stand_in_a_file_and_one_newline_at_its_end_is_left_out(
    secret, content, value
) -> None:
    secret.write_bytes(content)
    settings = ParcelSettings()
    assert settings.password is not None
    assert settings.password.get_secret_value() == value
    assert "hunter2" not in repr(settings)


def test_a_variable_and_its_file_are_not_both_set(secret, monkeypatch) -> None:
    secret.write_text("hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_PASSWORD", "hunter2")
    name = "CORRAL_LATE_PARCELS_PASSWORD"
    assert refusal() == [f"{name} and {name}_FILE are both set: set one of them"]
    monkeypatch.setenv(name, "")  # an empty variable counts as not set
    assert ParcelSettings().user == "ada"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "cannot be used: it is empty"),
        (b"\n", "cannot be used: it is empty"),
        (b"hunter2\xff", "cannot be used: it is not UTF-8 text"),
        (b"hunter2\0", "cannot be used: it holds a NUL character"),
        (b"hunter2" * 10_000, "cannot be used: it has more than 65536 bytes"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence_without_its_contents(
    secret, content, problem
) -> None:
    if content is not None:
        secret.write_bytes(content)
    assert refusal() == [f"CORRAL_LATE_PARCELS_PASSWORD_FILE: the file {str(secret)!r} {problem}"]


def test_only_secrets_are_read_from_files(secret, monkeypatch, tmp_path) -> None:
    secret.write_text("hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOST_FILE", str(tmp_path / "host"))
    name = "CORRAL_LATE_PARCELS_HOST"
    assert refusal() == [f"{name}_FILE is not a setting; did you mean {name}?"]


# --- what `corral check` finds


def test_a_misspelt_name_is_like_a_setting_or_its_last_words_are(monkeypatch) -> None:
    for name in ("CORRAL_LATE_PARCELS_POST_HOTS", "CORRAL_LATE_PARCELS_PASSWORD_FILES"):
        monkeypatch.setenv(name, "x")
    prefix = "CORRAL_LATE_PARCELS_"
    assert find_problems(ParcelSettings, values=False) == [
        f"{prefix}PASSWORD_FILES is not a setting; did you mean {prefix}PASSWORD_FILE?",
        f"{prefix}POST_HOTS is not a setting; did you mean {prefix}HOST?",
    ]


def test_the_check_judges_values_that_are_set_and_not_those_that_are_missing(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_WEIGHT", "0")
    assert find_problems(ParcelSettings, values=False) == []
    assert find_problems(ParcelSettings, values=True) == [
        "CORRAL_LATE_PARCELS_WEIGHT: input should be greater than 0"
    ]
    monkeypatch.setenv("CORRAL_LATE_PARCELS_WEIGHT", "1")
    assert find_problems(ParcelSettings, values=True) == []
