"""`DeclarationContract`: what every package with a queue must keep, as tests to inherit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from corral.queue import Queue

__all__ = ["DeclarationContract"]

WORKERS_ONLY = ("asyncio", "pydantic_settings", "redis", "structlog")
"""What no declaration may load: the event loop alone is a sixth of what it costs to import one."""
SECONDS = 60.0
"""How long a process of these tests may take."""


class DeclarationContract:
    """Tests of a queue's declaration. Inherit them in a class whose name begins with `Test`.

    ```python
    class TestDeclaration(DeclarationContract):
        queue = emails
        package = "corral_emails"
        example = {"to": "ada@example.org", "template": "welcome", "variables": {}}
        not_for_producers = ("jinja2", "aiosmtplib")
    ```

    Attributes:
        queue: The queue.
        package: The module that a producer imports, and that the entry point names.
        example: A payload as JSON has it, with every field that is written when it is set.
        not_for_producers: Modules that the package's processor uses, and that a producer must
            neither load nor have installed, beside those that no declaration may load.
    """

    queue: ClassVar[Queue[Any]]
    package: ClassVar[str]
    example: ClassVar[Mapping[str, Any]]
    not_for_producers: ClassVar[Collection[str]] = ()

    def test_an_example_is_written_as_other_languages_write_it(self) -> None:
        """The JSON that is written is the one that was given, and is read back without a rest."""
        payload = self.queue.validated(dict(self.example))
        assert json.loads(self.queue.dumped(payload)) == dict(self.example)
        read, unknown = self.queue.parsed(json.dumps(dict(self.example)).encode())
        assert (read, set(unknown)) == (payload, set())

    def test_an_unknown_field_of_another_writer_is_left_out_and_named(self) -> None:
        """A producer that is newer than this worker may send more than this model has."""
        field = "fieldOfANewerProducer"
        raw = json.dumps({**self.example, field: 1}).encode()
        read, unknown = self.queue.parsed(raw)
        assert (read, set(unknown)) == (self.queue.validated(dict(self.example)), {field})

    def test_a_producer_loads_nothing_that_only_a_worker_needs(self) -> None:
        """Its import is paid by every web process."""
        heavy = (*WORKERS_ONLY, f"{self.package}.processor", *self.not_for_producers)
        program = f"""
import sys, {self.package} as loaded
loaded.corral_queues(), getattr(loaded, "corral_hookspecs", list)()
print([name for name in {heavy!r} if name in sys.modules])
"""
        assert self._run("-c", program) == "[]"

    def test_a_producer_needs_nothing_that_only_a_worker_needs(self) -> None:
        """Where the processor's dependencies are not installed, the queue is in the catalog."""
        program = f"""
import sys
sys.modules |= dict.fromkeys({tuple(self.not_for_producers)!r})
from {self.package} import corral_queues
from corral.app import read_installed
catalog = read_installed("producer").catalog
print(*[queue.name for queue in corral_queues() if catalog.get(queue.name).queue is queue])
"""
        assert self.queue.name in self._run("-c", program).split()

    def test_corral_check_accepts_it(self, tmp_path: Path) -> None:
        """With nothing configured, as where an image is built."""
        checked = json.loads(self._run("-m", "corral", "check", "--json", folder=tmp_path))
        assert self.queue.name in [queue["name"] for queue in checked["queues"]]

    def _run(self, *arguments: str, folder: Path | None = None) -> str:
        """Run Python to its end without Corral's settings; returns what it printed."""
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")
        }
        ended = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()
