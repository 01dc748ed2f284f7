"""Which store a command uses, by what the environment says."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from corral.embedded.server import embedded_store, open_store
from corral.errors import ConfigurationError
from corral.settings import Settings


def test_the_configured_store_comes_first(data_dir: Path) -> None:
    settings = Settings(
        redis_url="redis://user:secret@host/0", env="development", data_dir=data_dir
    )
    with open_store(settings, implied_development=True) as url:
        assert url == "redis://user:secret@host/0"
    assert not data_dir.exists()


@pytest.mark.parametrize("url", ["redis://host/abc", "redis://host/0?soket_timeout=5"])
def test_a_configured_store_that_is_misspelt_is_refused_before_anything_is_sent(
    data_dir: Path, url: str
) -> None:
    refused = pytest.raises(ConfigurationError, match="is not a store's address")
    with refused, open_store(Settings(redis_url=url, data_dir=data_dir)):
        pass


@pytest.mark.parametrize(("env", "implied"), [("development", False), ("production", True)])
def test_development_starts_the_embedded_store(data_dir: Path, env: str, implied: bool) -> None:
    with open_store(Settings(env=env, data_dir=data_dir), implied_development=implied) as url:
        assert url == f"unix://{data_dir}/store.sock"
        with redis.Redis.from_url(url) as store:
            assert store.ping()


def test_production_has_no_store_unless_one_is_configured(data_dir: Path) -> None:
    settings = Settings(env="production", data_dir=data_dir)
    refused = pytest.raises(
        ConfigurationError, match="REDIS_URL is not set and CORRAL_ENV is 'production'"
    )
    with embedded_store(data_dir), refused, open_store(settings):
        pass


def test_without_an_environment_a_running_store_is_used_and_none_is_started(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CORRAL_ENV", raising=False)
    settings = Settings(data_dir=data_dir)
    with (
        pytest.raises(ConfigurationError, match="no store is configured") as refused,
        open_store(settings),
    ):
        pass
    assert refused.value.exit_code == 2
    assert "CORRAL_ENV=development" in str(refused.value.hint)
    assert not data_dir.exists()
    with embedded_store(data_dir) as running, open_store(settings) as url:
        assert url == running
