"""Before the examples of docs/logs.md."""

import logging
