"""Before the examples of docs/metrics.md."""

from acme_pages import emails as letters
from corral import testing

deps = testing.deps()
