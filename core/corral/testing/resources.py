"""`deps`: makes the `Deps` that a resource is opened with, without a worker or a store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import MappingProxyType
from typing import Any, Final

from corral.deps import Deps, OpenResource
from corral.jobs import JobScheduler
from corral.plugins import Plugins
from corral.testing.recording import RecordingJobScheduler

__all__ = ["deps"]

_NONE: Final[Mapping[str, object]] = MappingProxyType({})


def deps(
    *,
    jobs: JobScheduler | None = None,
    plugins: Mapping[str, object] = _NONE,
    resources: AsyncExitStack | None = None,
    provided: Mapping[OpenResource[Any], object] | None = None,
) -> Deps:
    """Make the `Deps` that a processor's resource is opened with. Call it in a coroutine.

    It knows the plugins that it is given, and none of those that are installed:

    ```python
    async def find_user(user_id: str) -> User:
        return User(user_id, "ada@example.org")


    async def test_a_mail_goes_to_the_address_of_the_user() -> None:
        users = SimpleNamespace(acme_find_user=hookimpl(find_user))
        deps = testing.deps(plugins={"acme_hooks": acme_hooks, "acme_users": users})
        async with open_mailer(deps) as mailer:
            assert await mailer.address("ada") == "ada@example.org"
    ```

    Args:
        jobs: Enqueues follow-up jobs; a `RecordingJobScheduler` without queues by default.
        plugins: By name, the modules whose hooks are called: the last one's are called first. The
            plugin that offers a hook is one of them. Any object with functions that are marked with
            `hookimpl` will do.
        resources: Closes what `deps.enter` opens. Needed only if the test calls `deps.enter`, or
            opens a resource that does.
        provided: What `deps.enter` returns for these functions, without calling them:
            `{corral.inspector.of_worker: inspector}`.

    Raises:
        CatalogError: A module has a hook that cannot be called.
        RuntimeError: No event loop is running.
    """
    return Deps(
        RecordingJobScheduler() if jobs is None else jobs,
        Plugins.of_modules(plugins),
        AsyncExitStack() if resources is None else resources,
        provided,
    )
