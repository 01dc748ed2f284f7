"""Before the examples in docstrings of the core; the module's own names are there as well."""

from typing import Annotated

from fastapi import FastAPI
from pydantic import DirectoryPath, Field
from pydantic_settings import SettingsConfigDict

from acme_pages import emails

app = FastAPI()


async def who_is_it(request):
    """Let nobody in."""
