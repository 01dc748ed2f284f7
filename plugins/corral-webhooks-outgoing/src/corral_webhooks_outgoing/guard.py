"""The guard: opens every connection of a webhook, to an address that it has checked.

A name is resolved once, all its addresses are judged, and the judged ones are dialled as numbers. A
resolver that answers differently the next time is not asked a next time. TLS, SNI and `Host` keep
the name: they are above this.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from ipaddress import ip_address

from httpcore2 import (
    SOCKET_OPTION,
    AnyIOBackend,
    AsyncNetworkBackend,
    AsyncNetworkStream,
    ConnectError,
    ConnectTimeout,
)

from corral_webhooks_outgoing.addresses import is_public
from corral_webhooks_outgoing.ration import Rationed

__all__ = ["Guard", "NotPublic"]


class NotPublic(Exception):
    """The name stands for an address that a webhook must not reach."""


class Guard(AsyncNetworkBackend):
    """A network backend that connects to public addresses only, and to no socket of this machine.

    Args:
        allow_private: Connect to all others as well.
        network: Makes the connections.
    """

    def __init__(self, *, allow_private: bool, network: AsyncNetworkBackend | None = None) -> None:
        self._allow_private = allow_private
        self._network = network or AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Connect to one of the addresses that a name stands for, if all of them are public.

        Args:
            host: The name, or an address in whatever form.
            port: The port.
            timeout: Seconds for all of it, the resolver included.
            local_address: As the backend that connects takes it.
            socket_options: As the backend that connects takes it.

        Raises:
            NotPublic: One of its addresses is not public.
            ConnectError: The name has no address, or nobody answers there.
            ConnectTimeout: It took too long.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        addresses = await self._resolve(host, port, timeout)
        if not self._allow_private:
            for address in addresses:
                if not is_public(ip_address(address)):
                    raise NotPublic(f"{host} is {address}" if address != host else host)
        failure: Exception = ConnectError("the name has no address")
        for place, address in enumerate(addresses):
            # its share of the time, so that an address that swallows packets leaves some for the
            # others
            share = (
                None
                if deadline is None
                else max(deadline - time.monotonic(), 0) / (len(addresses) - place)
            )
            try:
                made = await self._network.connect_tcp(
                    address, port, share, local_address, socket_options
                )
                return Rationed(made)
            except (ConnectError, ConnectTimeout) as error:
                failure = error
        raise failure

    async def _resolve(self, host: str, port: int, timeout: float | None) -> list[str]:
        asked: Future[list[str]] = Future()
        asked.set_running_or_notify_cancel()  # an answer that comes after the timeout is dropped
        threading.Thread(
            target=_ask, args=(asked, host, port), name="webhook-name", daemon=True
        ).start()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asked), timeout)
        except TimeoutError as error:
            raise ConnectTimeout("the name was not resolved in time") from error
        except (
            OSError,
            UnicodeError,
        ) as error:  # UnicodeError: a name that cannot be written for a resolver
            raise ConnectError(
                f"the name cannot be resolved: {getattr(error, 'strerror', None) or error}"
            ) from error


def _ask(asked: Future[list[str]], host: str, port: int) -> None:
    """Look a name up, in a thread of its own: nobody can stop the system's resolver.

    A name server that never answers holds a thread for half a minute. A pool of them would be held
    by the names of one stranger while those of all others wait, and would be waited for when the
    worker ends.
    """
    try:
        asked.set_result(_addresses(host, port))
    except Exception as error:  # noqa: BLE001  # it is raised where it is waited for
        asked.set_exception(error)


def _addresses(host: str, port: int) -> list[str]:
    """The addresses of a name, in the system resolver's order and in their usual form."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))
