"""A small HTTPS client for load: what it costs itself must not be what is measured.

Here: connections that send prepared bytes and give status and body; a watch that gives its lines; a loop of many clients. Not here: what is
asked, what a figure means. One request at a time on a connection, as a client of the API that waits for its answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

_PIECE = 1 << 20  # bytes
_LAST = b"\r\n0\r\n\r\n"  # the end of a chunked body


class Refused(Exception):
    """The server answered with another status than the one expected, or went away."""


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: Any = None
        self._needed = 0  # bytes of the whole answer, once its head is known
        self._closed = False

    @classmethod
    async def open(cls, port: int, context: ssl.SSLContext) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port, ssl=context, server_hostname="localhost")
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Refused(f"the connection ended: {exc}"))

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._needed:
            end = received.find(b"\r\n\r\n")
            if end < 0:
                return
            at = received.find(b"content-length: ", 0, end)
            if at < 0:
                raise Refused(f"an answer without a length: {bytes(received[:end])!r}")
            self._needed = end + 4 + int(received[at + 16 : received.index(b"\r\n", at)])
        if len(received) >= self._needed and self._waiter is not None:
            answer = bytes(received)
            received.clear()
            self._needed = 0
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result((int(answer[9:12]), answer))

    def send(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Send a whole request; the future gives the status and the answer's bytes, head included."""
        self._waiter = asyncio.get_running_loop().create_future()
        if self._closed or self._transport is None:
            self._waiter.set_exception(Refused("the connection has ended"))
        else:
            self._transport.write(request)
        return self._waiter

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Lines(asyncio.Protocol):
    """A watch: ``told`` is called with each line's bytes and the time at which its last byte came."""

    def __init__(self, request: bytes, told: Callable[[bytes, float], None]) -> None:
        self._request = request
        self._told = told
        self._received = bytearray()
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        self.lost = True

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        if not self.begun.done():
            self.begun.set_result(None)
        self._received += data
        end = self._received.rfind(b"}\n")
        if end < 0:
            return
        # What frames the chunks of HTTP lies between lines and harms nobody who looks for a mark inside.
        whole = bytes(self._received[: end + 1])
        del self._received[: end + 2]
        for line in whole.split(b"}\n"):
            self._told(line, now)


class Download:
    """A connection that reads one long answer. It takes what has come in large pieces: few calls, and as much copying as TLS asks for."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._plain = socket.create_connection(("127.0.0.1", port))
        self._encrypted, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._encrypted, self._to_send, server_hostname="localhost")
        self._piece = memoryview(bytearray(_PIECE))
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._exchange()

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *_: object) -> None:
        self._plain.close()

    def _exchange(self) -> None:
        """Send what is to be sent, and take what has come, waiting for it. Raises Refused when the connection ends."""
        if self._to_send.pending:
            self._plain.sendall(self._to_send.read())
        got = self._plain.recv_into(self._piece)
        if not got:
            raise Refused("the answer ended early")
        self._encrypted.write(self._piece[:got])

    def read(self, request: bytes, buffer: bytearray) -> int:
        """Send a request and read its chunked answer into ``buffer``. Gives its size, head and frames included."""
        self._tls.write(request)
        size, room = 0, memoryview(buffer)
        while not (size >= len(_LAST) and room[size - len(_LAST) : size] == _LAST):
            self._exchange()
            with contextlib.suppress(ssl.SSLWantReadError):
                while True:
                    size += self._tls.read(_PIECE, room[size:])
        return size


def request(method: str, path: str, body: bytes = b"", *, headers: str = "") -> bytes:
    """Give the bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n{headers}"
    if body or method in ("POST", "PUT", "PATCH"):
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


async def drive(port: int, context: ssl.SSLContext, requests: Iterable[bytes], clients: int, expected: int) -> float:
    """Have ``clients`` connections send all requests, each its next one when it has its answer. Gives the time taken, in seconds.

    Raises Refused when an answer has another status than ``expected``.
    """
    connections = [await Connection.open(port, context) for _ in range(clients)]
    left: Iterator[bytes] = iter(requests)

    async def client(connection: Connection) -> None:
        for one in left:
            status, answer = await connection.send(one)
            if status != expected:
                raise Refused(answer.decode(errors="replace"))

    start = time.perf_counter()
    await asyncio.gather(*map(client, connections))
    taken = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return taken


def on_a_loop(work: Coroutine[None, None, float]) -> float:
    """Run one coroutine on a loop of its own."""
    import uvloop

    return uvloop.run(work)
