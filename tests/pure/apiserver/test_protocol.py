"""The protocol of one connection, as bytes: what is written together, what a connection bears, when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from podwire.apiserver.protocol import Exchange, Protocol
from podwire.daemon.http_server import AHEAD, HEAD_LIMIT
from running_apiserver import ApiServer

LIMIT_S = 20
IDLE_S = 0.2
APPLICATION_DATA = 23  # the type of TLS records after the handshake: RFC 8446, 5.1


def records(text: bytes) -> list[int]:
    """The sizes of the TLS records in a text of whole ones."""
    sizes, at = [], 0
    while at < len(text):
        assert text[at] == APPLICATION_DATA
        sizes.append(int.from_bytes(text[at + 3 : at + 5], "big"))
        at += 5 + sizes[-1]
    return sizes


def test_an_answer_is_one_record(server: ApiServer) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = server.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", server.port), LIMIT_S) as plain:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        for _ in range(2):  # the second on a connection that is known
            tls.write(b"GET /api/v1/namespaces/default HTTP/1.1\r\nhost: localhost\r\n\r\n")
            plain.sendall(outgoing.read())
            received, answer = b"", b""
            while not answer.endswith(b"}"):
                piece = plain.recv(65536)
                assert piece
                received += piece
                incoming.write(piece)
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += tls.read(65536)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b'"kind":"Namespace"' in answer
            assert len(records(received)) == 1


App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(app: App, idle_s: float = IDLE_S) -> AsyncIterator[int]:
    """Serve an application in the clear; gives the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=Protocol,
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            timeout_keep_alive=idle_s,  # type: ignore[arg-type]
        )
        config.load()
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait_for(task, LIMIT_S)


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Say what was asked. ``/slow`` thinks for longer than a connection may be idle; ``/pieces`` does not know how long its answer is."""
    message = await receive()
    if scope["path"] == "/slow":
        await asyncio.sleep(3 * IDLE_S)
    text = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {len(message['body'])}\n".encode()
    known = [] if scope["path"] == "/pieces" else [(b"content-length", str(len(text)).encode())]
    closing = [(b"connection", b"close")] if scope["path"] == "/last" else []
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain"), *known, *closing]})
    if known:
        await send({"type": "http.response.body", "body": text})
        return
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    for piece in (text, b"x" * 100_000):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def slow_to_hear(_scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer when the whole body has come."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0"), (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b""})


async def patient(_scope: dict[str, Any], receive: Any, _send: Any) -> None:
    """Answer nothing until the client has gone, as a watch of what does not change."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def headers_at_the_end(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Say which headers there are when the whole body has come."""
    while (await receive()).get("more_body", False):
        pass
    text = b" ".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(text)).encode())]})
    await send({"type": "http.response.body", "body": text})


async def said(port: int, *requests: bytes, last: bytes = b"") -> bytes:
    """Send requests one right after the other and give all that comes until the server ends the connection or says ``last``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"".join(requests))
    async with asyncio.timeout(LIMIT_S):
        received = b""
        while not (last and received.endswith(last)):
            piece = await reader.read(65536)
            if not piece:
                break
            received += piece
    writer.close()
    await writer.wait_closed()
    return received


class Told(asyncio.Protocol):
    """Hears a server to its end, also one that does not listen any more."""

    def __init__(self) -> None:
        self.received = b""
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


async def told(port: int, request: bytes) -> bytes:
    transport, client = await asyncio.get_running_loop().create_connection(Told, "127.0.0.1", port)
    transport.write(request)
    await asyncio.wait_for(client.over.wait(), LIMIT_S)
    return client.received


def ask(target: str, method: str = "GET", version: str = "1.1", headers: str = "") -> bytes:
    return f"{method} {target} HTTP/{version}\r\nhost: localhost\r\n{headers}\r\n".encode()


async def test_requests_in_a_row_are_answered_in_order() -> None:
    async with serving(echo) as port:
        received = await said(port, ask("/slow?a=1"), ask("/b%20c"), ask("/last"))
        assert [line for line in received.split(b"\n") if line.startswith(b"GET")] == [b"GET /slow?a=1 0", b"GET /b c? 0", b"GET /last? 0"]
        assert received.count(b"connection: close\r\n") == 1


async def test_an_absolute_url_is_its_path() -> None:
    async with serving(echo) as port:
        assert b"\r\n\r\nGET /a/b?c=d 0\n" in await said(port, ask("http://other.example:80/a/b?c=d#e", version="1.0"))


async def test_an_answer_of_unknown_length_is_chunked_and_the_head_of_one_is_not() -> None:
    async with serving(echo) as port:
        received = await said(port, ask("/pieces"), last=b"0\r\n\r\n")
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        text = b"GET /pieces? 0\n"
        assert body == b"%x\r\n%b\r\n186a0\r\n%b\r\n0\r\n\r\n" % (len(text), text, b"x" * 100_000)
        head_only = await said(port, ask("/pieces", "HEAD", headers="connection: close\r\n"))
        assert head_only.endswith(b"\r\n\r\n")
        assert b"chunked" not in head_only


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /%b" % (b"a" * HEAD_LIMIT),
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: %b" % (b"a" * HEAD_LIMIT),
        b"GET / HTTP/1.1\r\nhost: localhost\r\n%b" % (b"x: y\r\n" * (HEAD_LIMIT // 6 + 1)),
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: %b" % (b"a" * HEAD_LIMIT),
        b"POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n5;x=%b" % (b"a" * HEAD_LIMIT),
    ],
    ids=["target", "header", "headers", "trailer", "chunk extension"],
)
async def test_a_head_has_an_end(endless: bytes) -> None:
    """What brings no request nearer is not gathered for ever; as much of a body is."""
    async with serving(slow_to_hear, LIMIT_S) as port:
        received = await told(port, endless + b"a" * 262_144)
        assert received.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert b"connection: close\r\n" in received
        body = b"a" * (2 * HEAD_LIMIT)
        assert (await said(port, ask("/last", "POST", headers=f"content-length: {len(body)}\r\n"), body)).startswith(b"HTTP/1.1 200")


async def test_requests_ahead_of_their_answers_have_an_end() -> None:
    async with serving(echo, LIMIT_S) as port:
        received = await said(port, *[ask("/b")] * (AHEAD - 1), ask("/last"))
        assert received.count(b"GET /b? 0\n") == AHEAD - 1
        assert b"GET /last? 0" in received
    for ahead in ([ask("/b")] * (AHEAD + 2), [ask("/b"), ask("/c", "POST", headers="content-length: 1000000\r\n"), b"a" * 1_000_000]):
        async with serving(patient, LIMIT_S) as port:
            assert (await told(port, b"".join(ahead))).count(b"HTTP/1.1 400") == 1


async def test_who_has_gone_is_not_answered_whatever_he_sent_ahead() -> None:
    """The request that is worked on learns it, though it is not the last that was read; else it would go on for ever."""
    begun, over = asyncio.Event(), asyncio.Event()

    async def watching(scope: dict[str, Any], receive: Any, send: Any) -> None:
        begun.set()
        await patient(scope, receive, send)
        over.set()

    async with serving(watching, LIMIT_S) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ask("/watch") + ask("/b"))
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        writer.write(ask("/c"))
        await writer.drain()
        writer.transport.abort()
        await asyncio.wait_for(over.wait(), LIMIT_S)


async def test_what_follows_a_body_is_no_header() -> None:
    async with serving(headers_at_the_end) as port:
        sent = b"0\r\nauthorization: Bearer a\r\n\r\n"
        received = await said(port, ask("/", "POST", headers="connection: close\r\ntransfer-encoding: chunked\r\n"), sent)
        assert received.startswith(b"HTTP/1.1 200")
        assert b"transfer-encoding" in received.partition(b"\r\n\r\n")[2]
        assert b"authorization" not in received


@pytest.mark.parametrize("line", [b"GET /\r\n", b"GET / HTTP/0.9\r\n", b"GET / HTTP/2.0\r\nhost: localhost\r\n"])
async def test_other_versions_are_not_spoken(line: bytes) -> None:
    async with serving(echo) as port:
        assert (await said(port, line + b"\r\n")).startswith(b"HTTP/1.1 400")


async def test_a_body_is_asked_for() -> None:
    async with serving(echo) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(LIMIT_S):
            writer.write(ask("/", "POST", headers="expect: 100-continue\r\ncontent-length: 5\r\n"))
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"hello")
            await reader.readuntil(b"POST /? 5\n")
        writer.close()
        await writer.wait_closed()


async def test_an_exchange_that_is_over_is_gone() -> None:
    """What refers to itself stays until the collector of garbage comes: not one for each request."""
    async with serving(echo) as port:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                await said(port, *[ask("/a")] * 10, ask("/last"))
            left = sum(isinstance(one, Exchange) for one in gc.get_objects())
        finally:
            gc.enable()
    assert left <= 5  # of each connection the last one


async def test_an_exchange_whose_client_has_gone_is_gone() -> None:
    """So is what was sent of its body."""
    async with serving(patient) as port:
        gc.collect()
        gc.disable()
        try:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(ask("/", "POST", headers="content-length: 5\r\nexpect: 100-continue\r\n"))
                await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
                writer.transport.abort()
            left, end = 1, time.monotonic() + LIMIT_S
            while left and time.monotonic() < end:
                await asyncio.sleep(0)
                left = sum(isinstance(one, Exchange) for one in gc.get_objects())
        finally:
            gc.enable()
    assert not left


async def test_an_idle_connection_ends_and_a_busy_one_does_not() -> None:
    async with serving(echo) as port:
        assert await said(port) == b""
        slow = await said(port, ask("/slow"))
        assert slow.endswith(b"GET /slow? 0\n")
