"""The settings `CORRAL_DATA_EXPORTS_…`: where archives go, what is in them, how they are fetched.

Without any setting archives are kept in the data directory, which is what a development machine
wants.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import AnyHttpUrl, Field, FilePath, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict

from corral import PluginSettings
from corral.settings import Settings

__all__ = ["ExportSettings"]

PREFIX = "CORRAL_DATA_EXPORTS_"

SECRET_BYTES = 32
"""What HMAC-SHA256 is as strong as (RFC 2104, section 3: a key of at least the hash's length)."""

LINK_SECONDS = 3 * 24 * 3600
MAX_LINK_SECONDS = 7 * 24 * 3600
"""S3 signs for a week at most."""


class ExportSettings(PluginSettings):
    """The settings of `data-exports`.

    Attributes:
        storage: Where archives are kept: a directory, or the URL of a bucket (`s3://bucket/folder`,
            `gs://…`, `az://…`); by default the folder `exports` of the data directory.
        tables: A TOML file that names the tables whose rows are exported, and the users' table.
        base_url: What links to archives in a directory begin with: where the application serves
        them.
        link_secret: What those links are signed with; 32 bytes at least.
        link_seconds: How long a link is good for. Archives are deleted when that has passed.
        csv_byte_order_mark: Whether a CSV begins with a byte order mark: without it, Excel reads
        it in the code page of the machine.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    storage: str | None = None
    tables: FilePath | None = None
    base_url: AnyHttpUrl | None = None
    link_secret: SecretStr | None = None
    link_seconds: Annotated[float, Field(gt=0, le=MAX_LINK_SECONDS)] = LINK_SECONDS
    csv_byte_order_mark: bool = True

    @property
    def location(self) -> str:
        """`storage`, or the folder in the data directory."""
        return self.storage or str(Settings.read(None).data_dir / "exports")

    @property
    def link_lifetime(self) -> timedelta:
        """How long a link is good for."""
        return timedelta(seconds=self.link_seconds)

    @field_validator("link_secret")
    @classmethod
    def _long_enough(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value().encode()) < SECRET_BYTES:
            raise PydanticCustomError(
                "secret", "at least {bytes} bytes are needed", {"bytes": SECRET_BYTES}
            )
        return secret

    @field_validator("base_url")
    @classmethod
    def _begins_a_link(cls, url: AnyHttpUrl | None) -> AnyHttpUrl | None:
        if url is not None and (url.query is not None or url.fragment is not None):
            raise PydanticCustomError(
                "base_url", "links begin with it, so it has no query and no fragment"
            )
        return url

    @model_validator(mode="after")
    def _what_belongs_together(self) -> Self:
        if (self.base_url is None) != (self.link_secret is None):
            raise PydanticCustomError(
                "links", f"{PREFIX}BASE_URL and {PREFIX}LINK_SECRET: one without the other"
            )
        return self
