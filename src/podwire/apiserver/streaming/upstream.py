"""What answers instead of this server: its address, TLS, and connections to it.

Requests are sent through an HTTP client that follows nothing and unpacks nothing; upgrades over a connection of their own. Whoever
cannot be reached is reported in the words that Kubernetes has for it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, field
from functools import cached_property

from podwire.apiserver import status
from podwire.client.http import aiohttp
from podwire.daemon.duplex import Duplex

CONNECT_S = 10.0
CONNECTIONS = 1000


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


@dataclass
class Upstream:
    """The client's side, one for the server. ``certificate`` and ``key`` are shown to kubelets, which must be of ``authority``."""

    certificate: str = ""
    key: str = ""
    authority: str = ""
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

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

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def unreachable(url: str, endpoint: Endpoint, error: BaseException) -> status.Failure:
    """A kubelet that does not answer."""
    return status.Failure(500, "", f'Get "{url}": dial tcp {endpoint.authority}: {reason(error)}')


def service_unreachable(endpoint: Endpoint, error: BaseException) -> status.Failure:
    """A Pod or Service that does not answer."""
    message = f"error trying to reach service: dial tcp {endpoint.authority}: {reason(error)}"
    return status.Failure(503, "ServiceUnavailable", message)
