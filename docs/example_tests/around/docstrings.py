"""Before the examples in docstrings of the core; the module's own names are there as well."""

import os
import types

from fastapi import FastAPI

from acme_pages import emails
from corral import hookimpl, testing
from corral.testing import Kit

app = FastAPI()
corral_kit = Kit(os.environ["REDIS_URL"])
deps = testing.deps()
mail = {"to": "ada@example.org", "template": "welcome"}
User = types.SimpleNamespace


async def who_is_it(request):
    """Let nobody in."""
