"""A plugin's settings: read from the environment, and refused all at once."""

from __future__ import annotations

import traceback
from typing import Annotated, Self

import pytest
from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from corral.errors import ConfigurationError
from corral.queue_settings import QueueSettings


class ParcelSettings(QueueSettings):
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
    settings = ParcelSettings.from_environment()
    assert (settings.host, settings.weight, settings.user) == ("depot", 3, None)
    with pytest.raises(ValidationError, match="frozen"):
        settings.host = "elsewhere"


def test_everything_that_is_wrong_is_told_at_once_and_no_value_is(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_WEIGHT", "hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_PASWORD", "hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_COLOUR_OF_THE_BOX", "blue")
    with pytest.raises(ConfigurationError) as refused:
        ParcelSettings.from_environment()
    assert str(refused.value).splitlines() == [
        "the settings of late-parcels were refused:",
        "  CORRAL_LATE_PARCELS_COLOUR_OF_THE_BOX is not a setting",
        "  CORRAL_LATE_PARCELS_PASWORD is not a setting; did you mean CORRAL_LATE_PARCELS_PASSWORD?",
        "  CORRAL_LATE_PARCELS_HOST: field required",
        "  CORRAL_LATE_PARCELS_WEIGHT: input should be a valid integer, unable to parse string as an integer",
    ]
    assert refused.value.exit_code == 2


def test_what_does_not_go_together_is_told_in_its_own_words(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOST", "depot")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_PASSWORD", "hunter2")
    with pytest.raises(ConfigurationError) as refused:
        ParcelSettings.from_environment()
    assert str(refused.value).splitlines()[1:] == [
        "  CORRAL_LATE_PARCELS_USER and CORRAL_LATE_PARCELS_PASSWORD: one without the other"
    ]


def test_a_list_that_is_no_json_is_told_among_the_others_without_its_value(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_LATE_PARCELS_DEPOTS", "hunter2")
    monkeypatch.setenv("CORRAL_LATE_PARCELS_HOTS", "depot")
    with pytest.raises(ConfigurationError) as refused:
        ParcelSettings.from_environment()
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
        ParcelSettings.from_environment()
    installed = tmp_path / "abroad-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: abroad\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[corral.queues]\nlate-parcels = parcels\nlate-parcels-abroad = abroad\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert ParcelSettings.from_environment().host == "depot"
    monkeypatch.setenv("CORRAL_LATE_PARCELS_ABROAT_HOST", "harbour")
    with pytest.raises(
        ConfigurationError, match="CORRAL_LATE_PARCELS_ABROAT_HOST is not a setting"
    ):
        ParcelSettings.from_environment()
