"""port-forward: connections to ports of a Pod's own 127.0.0.1, or ::1, each a pair of streams: data, and error for what goes wrong.

kubectl speaks SPDY/3.1, plain or (since 1.31) in WebSocket messages; each connection is a data and an error stream with the same
``requestID``. Some clients speak WebSocket channels instead (v4): two for each port that the query names, data and error, each of which
begins with the port's number in two bytes, and one connection a port.

The socket is made in the Pod's network namespace and read from only as fast as the client reads.

Source: https://kubernetes.io/docs/tasks/access-application-cluster/port-forward-access-application-cluster/; what kubectl sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

from podwire.linux import namespaces
from podwire.pods.kubelet.upgrade import Bytes, Plain, Refused, Tunnel, Upgraded, unmask, upgrade
from podwire.pods.worker import PodWorker
from podwire.wire import spdy, websocket

TUNNEL: Final = "SPDY/3.1+portforward.k8s.io"
CHANNELS: Final = "v4.channel.k8s.io"
SPDIES: Final = ("portforward.k8s.io",)
_EARLY: Final = 1024 * 1024  # bytes that may wait for a connection to be made
_WRITE_LIMIT: Final = 512 * 1024

Tree = dict[str, Any]


@dataclass
class Outlet:
    """Where a connection's data goes: ``send`` it, ``end`` of it, ``fail`` with words (empty: all went well); ``drain`` waits."""

    send: Callable[[bytes], None]
    end: Callable[[], None]
    fail: Callable[[str], None]
    drain: Callable[[], Any]
    is_full: Callable[[], bool]


class PodConnection(asyncio.Protocol):
    """One connection to a port of a Pod. What comes before it is made waits."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._eof = self._over = self._ended = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._waiting: asyncio.Task[None] | None = None
        self._making: asyncio.Task[None] | None = None

    def begin(self, worker: PodWorker, port: int) -> None:
        """Connect."""
        self._making = asyncio.create_task(self._make(worker, port))

    async def _make(self, worker: PodWorker, port: int) -> None:
        try:
            made = await _connected(worker, port)
            await asyncio.get_running_loop().create_connection(lambda: self, sock=made)
        except OSError as error:
            self.finish(f"error forwarding port {port} to pod {worker.record.uid}, uid : {error}")

    # What the Pod's side says -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(_WRITE_LIMIT)
        if self._over:
            self._transport.abort()
            return
        for data in self._early:
            self._transport.write(data)
        self._early.clear()
        self._writable.set()
        if self._eof:
            self._transport.write_eof()

    def data_received(self, data: bytes) -> None:
        self._outlet.send(data)
        if self._waiting is None and self._outlet.is_full() and self._transport is not None:
            self._transport.pause_reading()
            self._waiting = asyncio.create_task(self._resume())

    async def _resume(self) -> None:
        with contextlib.suppress(ConnectionError):
            await self._outlet.drain()
            self._waiting = None
            if self._transport is not None and not self._transport.is_closing():
                self._transport.resume_reading()

    def eof_received(self) -> bool:
        self._end()
        if self._eof:
            self.finish("")
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.finish("")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._outlet.end()

    # What the client's side says --------------------------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Send to the Pod, and wait while it does not take more."""
        if self._over or not data:
            return
        if self._transport is None:
            self._early.append(data)
            if sum(map(len, self._early)) >= _EARLY:
                self._writable.clear()
        else:
            self._transport.write(data)
        await self._writable.wait()

    def write_eof(self) -> None:
        """The client has nothing more to send."""
        self._eof = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()
        if self._ended:  # a client that has seen the other end end sends no reset any more
            self.finish("")

    def finish(self, words: str) -> None:
        """End in both directions."""
        if self._over:
            return
        self._over = True
        self._writable.set()
        self._outlet.fail(words)
        self._end()
        if self._making is not None and self._transport is None:
            self._making.cancel()
        if self._transport is not None:
            self._transport.close()


async def _connected(worker: PodWorker, port: int) -> socket.socket:
    """A socket that is connected to the port. Raises OSError whose text says why not."""
    if worker.namespace is None:
        raise ConnectionRefusedError("the pod is not running")
    namespace = os.dup(worker.namespace)
    try:
        said = []
        for family, version, address, shown in (
            (socket.AF_INET, 4, "127.0.0.1", "127.0.0.1"),
            (socket.AF_INET6, 6, "::1", "[::1]"),
        ):
            try:
                return await _connect(namespace, family, address, port)
            except OSError as error:
                words = os.strerror(error.errno).lower() if error.errno else str(error)
                said.append(f"IPv{version} dial tcp{version} {shown}:{port}: connect: {words}")
    finally:
        os.close(namespace)
    place = f"netns/pod/{worker.record.uid}"
    failed = f'failed to execute portforward in network namespace "{place}": failed to connect to localhost:{port}'
    raise ConnectionRefusedError(f'{failed} inside namespace "{place}", {" ".join(said)}')


async def _connect(namespace: int, family: int, address: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    made = await loop.run_in_executor(None, namespaces.socket_inside, namespace, family, socket.SOCK_STREAM)
    made.setblocking(False)
    try:
        await loop.sock_connect(made, (address, port))
    except BaseException:
        made.close()
        raise
    return made


# ---------------------------------------------------------------------------------------------------------------- SPDY


@dataclass
class _Pair:
    port: int
    error: int = 0
    data: int = 0
    connection: PodConnection | None = None
    failed: bool = False


@dataclass
class _Streams:
    """All connections of one client."""

    worker: PodWorker
    bytes: Bytes
    is_full: Callable[[], bool]
    session: spdy.Session = field(default_factory=lambda: spdy.Session(client=False))
    pairs: dict[str, _Pair] = field(default_factory=dict)
    by_data: dict[int, _Pair] = field(default_factory=dict)

    async def run(self) -> None:
        try:
            while data := await self.bytes.read():
                for event in self.session.receive(data):
                    if isinstance(event, spdy.Data):
                        await self._data(event)
                    elif not self._heard(event):
                        return
        except (spdy.ProtocolError, websocket.ProtocolError):
            self.bytes.write(self.session.go_away(1))
        finally:
            for pair in list(self.by_data.values()):
                if pair.connection is not None:
                    pair.connection.finish("")
            self.bytes.close()

    def _heard(self, event: spdy.Event) -> bool:
        match event:
            case spdy.Opened():
                self._open(event)
            case spdy.Reset(stream, _) if stream in self.by_data:
                connection = self.by_data.pop(stream).connection
                if connection is not None:
                    connection.finish("")
            case spdy.Ping(_, answer) if answer:
                self.bytes.write(answer)
            case spdy.GoAway():
                return False
        return True

    async def _data(self, event: spdy.Data) -> None:
        pair = self.by_data.get(event.stream)
        if pair is None or pair.connection is None:
            return
        await pair.connection.write(event.payload)
        if event.fin:
            pair.connection.write_eof()

    def _open(self, opened: spdy.Opened) -> None:
        kind, port = opened.headers.get("streamtype", ""), opened.headers.get("port", "")
        # Clients from before requestID open the error stream, then the data stream.
        number = opened.headers.get("requestid") or f"stream {opened.stream - (2 if kind == 'data' else 0)}"
        is_port = port.isascii() and port.isdigit() and 0 < int(port) < 65_536
        if kind not in ("error", "data") or not is_port:
            self.bytes.write(self.session.reset(opened.stream, spdy.REFUSED_STREAM))
            return
        pair = self.pairs.setdefault(number, _Pair(int(port)))
        setattr(pair, kind, opened.stream)
        self.bytes.write(self.session.reply(opened.stream))
        if pair.error and pair.data:
            del self.pairs[number]
            self.by_data[pair.data] = pair
            pair.connection = PodConnection(self._outlet(pair))
            pair.connection.begin(self.worker, pair.port)

    def _outlet(self, pair: _Pair) -> Outlet:
        def fail(words: str) -> None:
            self.bytes.write(self.session.data(pair.error, words.encode(), fin=True))
            self.by_data.pop(pair.data, None)

        return Outlet(
            send=lambda data: self.bytes.write(self.session.head(pair.data, len(data)), data),
            end=lambda: self.bytes.write(self.session.data(pair.data, b"", fin=True)),
            fail=fail,
            drain=self.bytes.drain,
            is_full=self.is_full,
        )


# ------------------------------------------------------------------------------------------------------------ WebSocket


async def _channels(worker: PodWorker, upgraded: Upgraded, ports: list[int]) -> None:
    connection, session = upgraded.connection, websocket.Session(server=True, unmask=unmask)

    def outlet(place: int) -> Outlet:
        def send(data: bytes, number: int = 2 * place) -> None:
            connection.write(b"".join((websocket.head(1 + len(data)), bytes((number,)), data)))

        def fail(words: str) -> None:
            if words:
                send(words.encode(), 2 * place + 1)

        return Outlet(send=send, end=lambda: None, fail=fail, drain=connection.drain, is_full=lambda: connection.is_full)

    made = []
    for place, port in enumerate(ports):
        out = outlet(place)
        for number in (2 * place, 2 * place + 1):
            connection.write(websocket.frame(bytes((number,)) + port.to_bytes(2, "little")))
        made.append(PodConnection(out))
        made[-1].begin(worker, port)
    channel = 0
    try:
        while data := await connection.read():
            for event in session.receive(data):
                if not isinstance(event, websocket.Piece):
                    connection.write(event.answer)
                    if isinstance(event, websocket.Closed):
                        return
                    continue
                payload = event.payload
                if event.first and payload:
                    channel, payload = payload[0], payload[1:]
                if channel % 2 == 0 and channel // 2 < len(made):
                    await made[channel // 2].write(payload)
    except websocket.ProtocolError:
        connection.write(websocket.close(websocket.PROTOCOL_ERROR_CODE))
    finally:
        for one in made:
            one.finish("")
        connection.close()


def _ports(texts: list[str]) -> list[int]:
    ports = [int(text) for given in texts for text in given.split(",") if text.isascii() and text.isdigit() and 0 < int(text) < 65_536]
    if not ports or len(ports) > 100:
        raise Refused(400, 'query parameter "port" is required: the ports to forward')
    return ports


async def forward(worker: PodWorker, scope: Tree, ports: list[str]) -> None:
    """Serve one client until it goes. ``ports``: those of the query. Raises Refused."""
    if worker.namespace is None:
        raise Refused(500, "unable to do port forwarding: pod is not running")
    numbers = _ports(ports) if ports else []
    upgraded = upgrade(scope, websockets=(TUNNEL, CHANNELS) if numbers else (TUNNEL,), spdy=SPDIES)
    if upgraded.websocket and upgraded.protocol != TUNNEL:
        await _channels(worker, upgraded, numbers)
        return
    connection = upgraded.connection
    carried: Bytes = Tunnel(connection) if upgraded.websocket else Plain(connection)
    await _Streams(worker, carried, lambda: connection.is_full).run()
