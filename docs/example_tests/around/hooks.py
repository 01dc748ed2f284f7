"""Before the examples of docs/hooks.md."""

import types

from sqlalchemy import MetaData

from acme_pages import emails as report_exports
from corral import Processor, hookimpl

User = types.SimpleNamespace
