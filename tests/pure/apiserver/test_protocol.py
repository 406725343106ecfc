"""The protocol of one connection, as bytes: what is written together, what a connection bears, when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn

from podwire.apiserver.protocol import Exchange, Protocol
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
async def serving(app: App) -> AsyncIterator[int]:
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
            timeout_keep_alive=IDLE_S,  # type: ignore[arg-type]
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


async def test_an_idle_connection_ends_and_a_busy_one_does_not() -> None:
    async with serving(echo) as port:
        assert await said(port) == b""
        slow = await said(port, ask("/slow"))
        assert slow.endswith(b"GET /slow? 0\n")
