"""Requests to a Kubernetes API server, typed.

What belongs here: one method a verb, from a row of ``objects.resources`` to a typed value. What must not: caches, retries of
what was refused (that is ``lib.reconcile``'s), knowledge of a kind.

Connections are kept and used again, and a burst of requests shares some: to make one costs both sides more than a request does, and the
server does one thing at a time. Only who has waited for long makes a further one, so that a slow answer holds up nobody else.

A typed value holds only the fields that agents read: write with ``patch``, or ``update`` a tree that ``get_tree`` gave; ``update`` with
a typed value would drop what its type does not name.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from podwire.client import errors, kubeconfig
from podwire.client.errors import ApiError, Unreachable
from podwire.client.http import aiohttp
from podwire.objects import codec
from podwire.objects.meta import Object
from podwire.objects.resources import Resource

T = TypeVar("T", bound=Object)
Tree = dict[str, Any]
Patch = Tree | list[Tree]  # a list of operations for a JSON patch
Body = Object | Patch

PAGE = 500  # objects in one page of a list, as client-go asks
CONNECTIONS = 100  # of one client; a watch holds one
TURNS, PATIENCE_S = 8, 1.0  # so many requests at once find a connection that is there; one more waits so long before it makes its own
REQUEST_S = 60.0
CONTENT_TYPES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
_CLOSING_TURNS = 4  # of the event loop, which a TLS connection needs to close
_TOO_MANY = 5  # answers "too many requests" in a row that are waited out


class Client:
    """A client of one API server. Usable in one event loop; ``close`` it there, or use it as a context."""

    def __init__(self, configuration: kubeconfig.Configuration, *, user_agent: str = "podwire", connections: int = CONNECTIONS) -> None:
        """``connections``: at most so many at once; 0: as many as are needed."""
        self.configuration = configuration
        self._connections = connections
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._turns = asyncio.Semaphore(TURNS)

    @classmethod
    def from_kubeconfig(cls, path: str, context: str | None = None) -> Self:
        """Raises KubeconfigError."""
        return cls(kubeconfig.load(path, context))

    @classmethod
    def in_cluster(cls) -> Self:
        """Raises KubeconfigError outside of a Pod."""
        return cls(kubeconfig.in_cluster())

    @property
    def server(self) -> str:
        return self.configuration.server

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
            for _ in range(_CLOSING_TURNS):
                await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    # Reading -------------------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource[T], name: str, namespace: str = "") -> T:
        """Raises ApiError (``not_found``), Unreachable, Undecodable; so do all methods below."""
        return codec.decode(resource.type, await self.request("GET", resource.path(namespace, name)))

    async def get_tree(self, resource: Resource[T], name: str, namespace: str = "", subresource: str = "") -> Tree:
        """Give the object as a plain tree, with every field."""
        return _tree(await self.request("GET", resource.path(namespace, name, subresource)))

    async def list(self, resource: Resource[T], namespace: str = "", labels: str = "", fields: str = "") -> list[T]:
        """List all objects, page by page. An object that does not decode raises Undecodable."""
        items: list[T] = []
        token = ""
        while True:
            page = await self.list_page(resource, namespace, labels=labels, fields=fields, continue_=token)
            if page.refused:
                raise page.refused[0][1]
            items += page.items
            token = page.continue_
            if not token:
                return items

    async def list_page(
        self, resource: Resource[T], namespace: str = "", *, labels: str = "", fields: str = "", limit: int = PAGE, continue_: str = ""
    ) -> codec.Page[T]:
        """Give one page. ``limit`` 0 means all in one. ApiError ``gone`` means that ``continue_`` is too old."""
        query = _query(labelSelector=labels, fieldSelector=fields, limit=str(limit or ""), **{"continue": continue_})
        return codec.decode_list(resource.type, await self.request("GET", resource.path(namespace), query=query))

    @contextlib.asynccontextmanager
    async def watch(
        self, resource: Resource[T], namespace: str = "", *, version: str, labels: str = "", fields: str = "", timeout_s: int = 300
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a watch from a resource version; gives the chunks of its stream as they come, which the server ends after ``timeout_s``."""
        query = _query(labelSelector=labels, fieldSelector=fields, resourceVersion=version, timeoutSeconds=str(timeout_s))
        query |= {"watch": "true", "allowWatchBookmarks": "true"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_S / 2, sock_read=timeout_s + REQUEST_S)
        url = self.server + resource.path(namespace)
        try:
            answer = await self._open().get(url, params=query, headers=self._headers(), timeout=timeout, **self._tls())
            if answer.status >= 300:
                raise errors.from_answer(answer.status, await answer.read())
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(self.server, error) from error
        try:
            yield self._chunks(answer)  # what the caller raises while it reads is the caller's
        finally:
            if answer.connection is not None and answer.connection.transport is not None:
                answer.connection.transport.abort()  # nothing is owed to the other side: no TLS farewell that would wait for its answer
            answer.close()

    async def _chunks(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        stream = answer.content.iter_any()
        while True:
            try:
                chunk = await anext(stream, b"")
            except (aiohttp.ClientError, OSError) as error:
                raise _unreachable(self.server, error) from error
            if not chunk:
                return
            yield chunk

    # Writing -------------------------------------------------------------------------------------------------------------

    async def create(self, resource: Resource[T], body: Object | Tree, namespace: str = "") -> T:
        """Create an object; its namespace is the one of its metadata if none is given."""
        tree = _document(resource, body)
        namespace = namespace or tree.get("metadata", {}).get("namespace", "")
        return codec.decode(resource.type, await self.request("POST", resource.path(namespace), tree))

    async def create_subresource(self, resource: Resource[T], name: str, namespace: str, subresource: str, body: Tree) -> Tree:
        """Post to a subresource, as ``pods/NAME/binding`` and ``pods/NAME/eviction`` want it; gives the answer's tree."""
        return _tree(await self.request("POST", resource.path(namespace, name, subresource), body))

    async def update(self, resource: Resource[T], body: Object | Tree, subresource: str = "") -> T:
        """Replace an object (PUT). Conflict if its ``resourceVersion`` is given and no longer current."""
        tree = _document(resource, body)
        meta = tree.get("metadata", {})
        path = resource.path(meta.get("namespace", ""), meta.get("name", ""), subresource)
        return codec.decode(resource.type, await self.request("PUT", path, tree))

    async def patch(
        self,
        resource: Resource[T],
        name: str,
        namespace: str,
        patch: Patch,
        *,
        kind: str = "merge",
        subresource: str = "",
        field_manager: str = "",
    ) -> T:
        """Patch an object. ``kind``: merge, strategic, json (a list of operations) or apply (needs ``field_manager``)."""
        query = _query(fieldManager=field_manager, force="true" if kind == "apply" else "")
        path = resource.path(namespace, name, subresource)
        answer = await self.request("PATCH", path, patch, content_type=CONTENT_TYPES[kind], query=query)
        return codec.decode(resource.type, answer)

    async def delete(
        self,
        resource: Resource[T],
        name: str,
        namespace: str = "",
        *,
        grace: int | None = None,
        uid: str = "",
        propagation: str = "",
        version: str = "",
    ) -> None:
        """Delete an object. ``uid`` and ``version``: only if it still is that one (else ApiError ``conflict``)."""
        options: Tree = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if propagation:
            options["propagationPolicy"] = propagation
        preconditions = _query(uid=uid, resourceVersion=version)
        if preconditions:
            options["preconditions"] = preconditions
        await self.request("DELETE", resource.path(namespace, name), options)

    # The wire ------------------------------------------------------------------------------------------------------------

    async def request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_S,
    ) -> bytes:
        """Send one request and give the body of its answer. Raises ApiError for a status of 300 and more, Unreachable for none."""
        data = None if body is None else codec.encode(body)
        headers = self._headers() | ({} if data is None else {"Content-Type": content_type})
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        for attempt in range(_TOO_MANY + 1):
            turn = await self._turn()
            try:
                async with self._open().request(
                    method, self.server + path, data=data, params=query, headers=headers, timeout=timeout, **self._tls()
                ) as answer:
                    content = await answer.read()
                    if answer.status < 300:
                        return content
                    wait_s = answer.headers.get("Retry-After", "")
                    if answer.status != 429 or not wait_s.isdecimal() or attempt == _TOO_MANY:
                        raise errors.from_answer(answer.status, content)
            except (aiohttp.ClientError, OSError) as error:
                raise _unreachable(self.server, error) from error
            finally:
                if turn:
                    self._turns.release()
            await asyncio.sleep(int(wait_s))
        raise AssertionError("the last attempt returns or raises")

    async def _turn(self) -> bool:
        """Wait for a connection to come free; False: it took too long, and a further one is made."""
        if not self._turns.locked():
            return await self._turns.acquire()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                return await self._turns.acquire()
        return False

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            ssl: Any = self.configuration.ssl or True
            connector = aiohttp.TCPConnector(limit=self._connections, ssl=ssl, keepalive_timeout=60, socket_factory=_socket)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False, read_bufsize=1 << 18)
        return self._session

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": self._user_agent}
        if self.configuration.token is not None:
            headers["Authorization"] = f"Bearer {self.configuration.token.read()}"
        return headers

    def _tls(self) -> dict[str, Any]:
        return {} if self.configuration.server_name is None else {"server_hostname": self.configuration.server_name}


def _socket(address: Any) -> socket.socket:
    """Make the socket of a connection.

    A watch may be silent for minutes: keepalives tell a server that is gone from one that has no news.
    """
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    made.setblocking(False)
    return made


def _unreachable(server: str, error: BaseException) -> Exception:
    if isinstance(error, Unreachable):
        return error
    return Unreachable(f"{server}: {error or type(error).__name__}")


def _query(**parameters: str) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if value}


def _tree(body: bytes) -> Tree:
    tree: Tree = msgspec.json.decode(body)
    return tree


def _document(resource: Resource[T], body: Object | Tree) -> Tree:
    tree = codec.tree(body) if isinstance(body, Object) else body
    head = {"apiVersion": resource.api_version, "kind": resource.kind}
    return head | {key: value for key, value in tree.items() if key not in head}


__all__ = ["ApiError", "Client", "Unreachable"]
