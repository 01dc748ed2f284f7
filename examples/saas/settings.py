"""What the API needs to know.

Corral and its plugins read their own settings, from the same environment.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings"]


class Settings(BaseSettings):
    """Read from `SAAS_…`.

    Attributes:
        url: Where the API is reached, for links in mails; no slash at its end.
        admin_token: Lets an operator in.
        stripe_secret: What the payment provider signs with.
    """

    model_config = SettingsConfigDict(env_prefix="SAAS_", frozen=True)

    url: Annotated[str, Field(pattern=r"^https?://\S+[^/\s]$")]
    admin_token: Annotated[SecretStr, Field(min_length=32)]
    stripe_secret: Annotated[SecretStr, Field(min_length=16)]
