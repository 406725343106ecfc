"""The two ways in which somebody else's answer reaches the client: an HTTP answer that is passed on, and a connection that is joined.

After a 101 two connections are one, and nothing is looked at any more. Before it nothing of the client's is passed on but the request
that was checked: a client cannot smuggle a second one to a kubelet, which takes this server at its word.

Source: RFC 9110 section 7.6.1 (what a proxy does not forward); https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from podwire.apiserver import status
from podwire.apiserver.answers import Answer, Stream
from podwire.apiserver.api import Api
from podwire.apiserver.streaming.upstream import Endpoint, Upstream
from podwire.client.http import aiohttp
from podwire.daemon.duplex import Duplex

Headers = Sequence[tuple[bytes, bytes]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"}
)
_OWN: Final = frozenset({b"authorization", b"host", b"content-length", b"x-remote-user", b"x-remote-group", b"x-remote-uid"})
_LONGEST_HEAD: Final = 64 * 1024
_LONGEST_REFUSAL: Final = 1024 * 1024
HEAD_S: Final = 60.0


class Exchange(ABC):
    """An answer that is under way. ``begun``: its code, as the record of requests has it."""

    def __init__(self, code: int) -> None:
        self.begun = Answer(code, b"")

    @abstractmethod
    async def run(self, api: Api, receive: Receive, send: Send) -> None:
        """Serve the client until it is over."""


def forwarded(headers: Iterable[tuple[bytes, bytes]], *, upgrade: bool = False) -> list[tuple[bytes, bytes]]:
    """What of a client's headers is passed on: nothing that says who it is to this server, nothing of this connection."""
    kept = []
    for name, value in headers:
        if name in _OWN or name.startswith((b"impersonate-", b"x-remote-extra-")):
            continue
        if name in HOP_BY_HOP and not (upgrade and name in (b"connection", b"upgrade")):
            continue
        kept.append((name, value))
    return kept


# ---------------------------------------------------------------------------------------------------------- an answer


class Passed(Exchange):
    """An HTTP answer whose head is there. ``relocate`` rewrites a Location."""

    def __init__(self, answer: aiohttp.ClientResponse, relocate: Callable[[str], str] = lambda place: place) -> None:
        super().__init__(answer.status)
        self._answer, self._relocate = answer, relocate

    async def run(self, api: Api, receive: Receive, send: Send) -> None:
        answer = self._answer
        headers = []
        for name, value in answer.raw_headers:
            name = name.lower()
            if name in HOP_BY_HOP:
                continue
            headers.append((name, self._relocate(value.decode("latin-1")).encode("latin-1") if name == b"location" else value))
        stopped = asyncio.Event()
        stream = Stream(answer.status, _nothing(), stop=stopped.set)
        api.streams.add(stream)
        work = asyncio.create_task(self._send(send, headers))
        others = [asyncio.create_task(_gone(receive)), asyncio.create_task(stopped.wait())]
        try:
            await asyncio.wait({work, *others}, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not work.cancelled() and isinstance(work.exception(), (aiohttp.ClientError, OSError)):
                return  # the answer ends in the middle, and so does this one
        finally:
            api.streams.discard(stream)
            for task in (work, *others):
                task.cancel()
            await asyncio.gather(work, *others, return_exceptions=True)
            answer.close()

    async def _send(self, send: Send, headers: Headers) -> None:
        await send({"type": "http.response.start", "status": self._answer.status, "headers": headers})
        if b"content-length" not in dict(headers):
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # the head goes out, although no word has been said
        async for piece, _ in self._answer.content.iter_chunks():
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _nothing() -> AsyncIterator[bytes]:
    """The pieces of a stream that is known to the server only so that it is ended with the others."""
    pieces: tuple[bytes, ...] = ()
    for piece in pieces:
        yield piece


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def request(
    upstream: Upstream, endpoint: Endpoint, method: str, target: str, headers: Headers, body: AsyncIterator[bytes] | None = None
) -> aiohttp.ClientResponse:
    """Send a request and wait for the head of its answer. ``target``: path and query as they are sent. Raises ClientError, OSError."""
    from yarl import URL

    names = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return await upstream.session().request(
        method,
        URL(endpoint.origin + target, encoded=True),
        headers=names,
        data=body,
        allow_redirects=False,
        ssl=endpoint.tls if endpoint.tls is not None else False,
        server_hostname=endpoint.name or None,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    )


async def body_of(receive: Receive) -> AsyncIterator[bytes]:
    """The client's body, piece by piece."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError("the client has gone")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


# ---------------------------------------------------------------------------------------------------------- an upgrade


class Joined(Exchange):
    """The other side has agreed to the upgrade: ``head`` is its answer, ``connection`` leads to it."""

    def __init__(self, take_over: Callable[[], Duplex], head: bytes, connection: Duplex) -> None:
        super().__init__(101)
        self._take_over, self._head, self._connection = take_over, head, connection

    async def run(self, api: Api, receive: Receive, send: Send) -> None:  # noqa: ARG002
        client, connection = self._take_over(), self._connection
        stream = Stream(101, _nothing(), stop=connection.close)
        api.streams.add(stream)
        try:
            client.write(self._head)
            client.join(connection)
            await client.lost.wait()
        finally:
            api.streams.discard(stream)
            client.close()
            connection.close()


class Refused(Exception):
    """The other side has answered an upgrade with something else. ``body`` is cut at a megabyte."""

    def __init__(self, code: int, headers: Headers, body: bytes) -> None:
        super().__init__(f"status {code}")
        self.code, self.headers, self.body = code, headers, body


async def join(
    upstream: Upstream, endpoint: Endpoint, method: str, target: str, headers: Headers, take_over: Callable[[], Duplex]
) -> Joined:
    """Send an upgrade over a connection of its own. Raises Refused, OSError, ssl.SSLError, TimeoutError, Failure."""
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1"), b"host: " + endpoint.authority.encode()]
    lines += [name + b": " + value for name, value in headers]
    if method not in ("GET", "HEAD"):
        lines.append(b"content-length: 0")
    asked = b"\r\n".join((*lines, b"", b""))
    connection = await upstream.spare(endpoint)
    if connection is not None:
        try:
            return await _switched(upstream, endpoint, asked, take_over, connection)
        except ConnectionError:
            pass  # it was closed meanwhile, unanswered; what an upgrade is for begins after the answer
    return await _switched(upstream, endpoint, asked, take_over, await upstream.connect(endpoint))


async def _switched(upstream: Upstream, endpoint: Endpoint, asked: bytes, take_over: Callable[[], Duplex], connection: Duplex) -> Joined:
    """Send the request for an upgrade and read the head of its answer; the connection is closed unless it is an upgrade."""
    try:
        connection.write(asked)
        async with asyncio.timeout(HEAD_S):
            head = await _head(connection)
            code = _code(head)
            if code != 101:
                raise await _refusal(code, head, connection)
    except BaseException:
        connection.close()
        raise
    upstream.prepare(endpoint)
    return Joined(take_over, head, connection)


async def _head(connection: Duplex) -> bytes:
    """Read the head of an answer, with its empty line."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        piece = await connection.read()
        if not piece or len(data) > _LONGEST_HEAD:
            raise ConnectionResetError("unexpected EOF")
        data += piece
    connection.unread(data[end + 4 :])
    return data[: end + 4]


def _code(head: bytes) -> int:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise status.Failure(502, "", "the answer to the upgrade is no HTTP")
    return int(words[1])


async def _refusal(code: int, head: bytes, connection: Duplex) -> Refused:
    """Read an answer that is no upgrade, as far as it is of interest."""
    headers = []
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            headers.append((name.strip().lower(), value.strip()))
    length = next((int(value) for name, value in headers if name == b"content-length" and value.isdigit()), None)
    body = b""
    while (length is None or len(body) < length) and len(body) < _LONGEST_REFUSAL:
        piece = await connection.read()
        if not piece:
            break
        body += piece
    return Refused(code, headers, body if length is None else body[:length])


UNREACHABLE: Final = (aiohttp.ClientError, OSError, ssl.SSLError, TimeoutError)
