"""What answers instead of this server: its address, TLS, and connections to it.

Requests are sent through an HTTP client that follows nothing and unpacks nothing; upgrades over a connection of their own. To a kubelet
that was asked for one, the connection for the next is made at once, so that nobody waits for its handshake. Whoever cannot be reached is
reported in the words that Kubernetes has for it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from podwire.apiserver import status
from podwire.client.http import aiohttp
from podwire.daemon.duplex import Duplex

CONNECT_S = 10.0
CONNECTIONS = 1000
SPARES: Final = 64
SPARE_S: Final = 120.0  # for which a connection waits to be used


@dataclass(frozen=True)
class Endpoint:
    """Where to connect. ``tls``: None is plain TCP. ``name``: what the certificate must hold."""

    address: str
    port: int
    tls: ssl.SSLContext | None = None
    name: str = ""

    @property
    def authority(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.authority}"


def reason(error: BaseException) -> str:
    """Why a connection was not made, as Go's programs say it."""
    inner = getattr(error, "os_error", error)
    if isinstance(inner, TimeoutError):
        return "i/o timeout"
    if isinstance(inner, ssl.SSLError):
        return f"tls: {inner.reason or inner}"
    number = getattr(inner, "errno", None)
    return f"connect: {os.strerror(number).lower()}" if number else str(inner)


class Spare:
    """A connection that is made before it is needed, and closed when nobody needs it. ``forget`` is called when it is none any more."""

    def __init__(self, making: asyncio.Task[Duplex], forget: Callable[[], None]) -> None:
        self._making, self._forget = making, forget
        self._closing = asyncio.get_running_loop().call_later(SPARE_S, self.close)
        making.add_done_callback(self._made)

    def _made(self, making: asyncio.Task[Duplex]) -> None:
        if making.cancelled() or making.exception() is not None:
            self._end()  # whoever needs one tries, and is told why not

    def _end(self) -> None:
        self._forget()
        self._closing.cancel()

    async def take(self) -> Duplex | None:
        """The connection, which is the caller's now; None: there is none, or it was closed by the other side."""
        self._end()
        try:
            made = await self._making
        except (OSError, TimeoutError):
            return None
        return None if made.ended else made

    def close(self) -> None:
        self._end()
        if not self._making.done():
            self._making.cancel()
        elif not self._making.cancelled() and self._making.exception() is None:
            self._making.result().close()


@dataclass
class Upstream:
    """The client's side, one for the server. ``certificate`` and ``key`` are shown to kubelets, which must be of ``authority``."""

    certificate: str = ""
    key: str = ""
    authority: str = ""
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)
    _spares: dict[Endpoint, Spare] = field(default_factory=dict, repr=False)

    @cached_property
    def kubelet_tls(self) -> ssl.SSLContext | None:
        """None: this server has no certificate for kubelets."""
        if not self.certificate:
            return None
        context = ssl.create_default_context(cafile=self.authority)
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["http/1.1"])
        return context

    @cached_property
    def any_tls(self) -> ssl.SSLContext:
        """For Pods and Services that speak HTTPS: their certificates are their own affair, as with upstream."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context

    def session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS, use_dns_cache=False)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
            )
        return self._session

    async def connect(self, endpoint: Endpoint) -> Duplex:
        """A connection of its own. Raises OSError, ssl.SSLError, TimeoutError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            name = (endpoint.name or endpoint.address) if endpoint.tls is not None else None
            _, made = await loop.create_connection(Duplex, endpoint.address, endpoint.port, ssl=endpoint.tls, server_hostname=name)
        return made

    async def spare(self, endpoint: Endpoint) -> Duplex | None:
        """A connection that was prepared."""
        spare = self._spares.get(endpoint)
        return None if spare is None else await spare.take()

    def prepare(self, endpoint: Endpoint) -> None:
        """Make a connection to a kubelet that will soon be needed."""
        if endpoint.tls is None or endpoint.tls is not self.kubelet_tls or endpoint in self._spares or len(self._spares) >= SPARES:
            return

        def forget() -> None:
            if self._spares.get(endpoint) is spare:
                del self._spares[endpoint]

        spare = self._spares[endpoint] = Spare(asyncio.create_task(self.connect(endpoint)), forget)

    async def close(self) -> None:
        for spare in list(self._spares.values()):
            spare.close()
        if self._session is not None:
            await self._session.close()


def unreachable(url: str, endpoint: Endpoint, error: BaseException) -> status.Failure:
    """A kubelet that does not answer."""
    return status.Failure(500, "", f'Get "{url}": dial tcp {endpoint.authority}: {reason(error)}')


def service_unreachable(endpoint: Endpoint, error: BaseException) -> status.Failure:
    """A Pod or Service that does not answer."""
    message = f"error trying to reach service: dial tcp {endpoint.authority}: {reason(error)}"
    return status.Failure(503, "ServiceUnavailable", message)
