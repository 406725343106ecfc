"""The channels of a command, whoever speaks: stdin and resize come, stdout, stderr and the outcome (error) go.

Over WebSocket each message begins with the number of its channel; from v5 on, 255 says that a channel has ended. Over SPDY each channel
is a stream, named by its header ``streamType``, and all must be there before the command begins.

Sources: https://kubernetes.io/docs/reference/using-api/api-concepts/; the protocol names v1 to v5.channel.k8s.io as kubectl offers them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from podwire.daemon.duplex import Duplex
from podwire.pods.kubelet.upgrade import Refused, Upgraded, unmask, upgrade
from podwire.wire import spdy, websocket

WEBSOCKETS: Final = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
SPDIES: Final = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
STREAMS_S: Final = 30.0  # for all streams to be there
_STDIN, _RESIZE, _CLOSE = 0, 4, 255
_NUMBERS: Final = {"stdout": 1, "stderr": 2, "error": 3}
_SMALL: Final = 64 * 1024  # bytes of a message that is read whole: a size, or one in base64
_WAITING: Final = 256 * 1024  # bytes of stdin that may wait

Tree = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which channels there are. With ``tty`` stdout and stderr are one, and sizes come."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class Stdin:
    """What the client writes: read by one, fed by another, which waits while too much is waiting."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def feed(self, data: bytes) -> None:
        if self._ended or not data:
            return
        self._pieces.append(data)
        self._size += len(data)
        self._changed.set()
        while self._size >= _WAITING and not self._ended:
            self._changed.clear()
            await self._changed.wait()

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        while not self._pieces:
            if self._ended:
                return b""
            self._changed.clear()
            await self._changed.wait()
        piece = self._pieces.popleft()
        self._size -= len(piece)
        self._changed.set()
        return piece


class Channels(ABC):
    """``gone`` is set when the client is."""

    def __init__(self) -> None:
        self.stdin = Stdin()
        self.gone = asyncio.Event()
        self._size: tuple[int, int] | None = None
        self._follower: Callable[[int, int], None] | None = None

    def follow_size(self, follower: Callable[[int, int], None] | None) -> None:
        """Have the terminal's columns and rows told from now on, those that are known already at once; None: to nobody."""
        self._follower = follower
        if follower is not None and self._size is not None:
            follower(*self._size)

    def _resized(self, text: bytes) -> None:
        try:
            size = json.loads(text)
            self._size = int(size.get("Width", 0)), int(size.get("Height", 0))
        except (ValueError, TypeError, AttributeError):
            return
        self.follow_size(self._follower)

    @abstractmethod
    async def run(self) -> None:
        """Read what the client sends until it is gone."""

    @abstractmethod
    async def send(self, channel: str, data: bytes) -> None:
        """Send on ``stdout`` or ``stderr``. Raises ConnectionResetError."""

    @abstractmethod
    async def finish(self, outcome: Tree) -> None:
        """Send the outcome, a Status, and end the connection."""


async def accept(scope: Tree, wanted: Wanted) -> Channels:
    """Upgrade a request and wait until its channels are there. Raises Refused."""
    upgraded = upgrade(scope, websockets=WEBSOCKETS, spdy=SPDIES)
    if upgraded.websocket:
        return _WebSocketChannels(upgraded)
    channels = _SpdyChannels(upgraded, wanted)
    try:
        async with asyncio.timeout(STREAMS_S):
            await channels.complete()
    except (TimeoutError, ConnectionError) as error:
        upgraded.connection.close()
        raise Refused(408, "timed out waiting for client to create streams") from error
    return channels


def _said(outcome: Tree, protocol: str) -> bytes:
    """The outcome as the client's protocol has it: a Status, or before v4 a message if it failed."""
    if protocol.startswith(("v4.", "v5.")):
        return json.dumps(outcome).encode()
    return b"" if outcome["status"] == "Success" else str(outcome.get("message", "")).encode()


class _WebSocketChannels(Channels):
    def __init__(self, upgraded: Upgraded) -> None:
        super().__init__()
        self._connection = upgraded.connection
        self._protocol = upgraded.protocol
        self._base64 = "base64" in upgraded.protocol
        self._session = websocket.Session(server=True, unmask=unmask)
        self._channel = -1
        self._message = b""

    async def run(self) -> None:
        try:
            while data := await self._connection.read():
                for event in self._session.receive(data):
                    if isinstance(event, websocket.Piece):
                        await self._piece(event)
                    else:
                        self._connection.write(event.answer)
                        if isinstance(event, websocket.Closed):
                            return
        except websocket.ProtocolError:
            self._connection.write(websocket.close(websocket.PROTOCOL_ERROR_CODE))
        finally:
            self.stdin.end()
            self.gone.set()
            self._connection.close()  # also of a client that has taken leave and stays

    async def _piece(self, piece: websocket.Piece) -> None:
        payload = piece.payload
        if piece.first:
            self._channel, self._message = -1, b""
        if self._channel < 0 and payload:
            self._channel = payload[0] - ord("0") if self._base64 else payload[0]
            payload = payload[1:]
        if self._channel == _STDIN and not self._base64:
            await self.stdin.feed(payload)
            return
        self._message += payload
        if len(self._message) > _SMALL and not (self._base64 and self._channel == _STDIN and len(self._message) < 16 * _SMALL):
            raise websocket.ProtocolError("the message is too long for its channel")
        if piece.last:
            await self._whole(self._message)

    async def _whole(self, message: bytes) -> None:
        if self._base64:
            try:
                message = base64.b64decode(message)
            except binascii.Error as error:
                raise websocket.ProtocolError("the message is not in base64") from error
        if self._channel == _STDIN:
            await self.stdin.feed(message)
        elif self._channel == _RESIZE:
            self._resized(message)
        elif self._channel == _CLOSE and message[:1] == bytes((_STDIN,)):
            self.stdin.end()

    async def send(self, channel: str, data: bytes) -> None:
        await self._connection.drain()
        self._send(_NUMBERS[channel], data)

    def _send(self, number: int, data: bytes) -> None:
        if self._base64:
            self._connection.write(websocket.frame(b"%d" % number + base64.b64encode(data), websocket.TEXT))
        else:
            self._connection.write(b"".join((websocket.head(1 + len(data)), bytes((number,)), data)))

    async def finish(self, outcome: Tree) -> None:
        if said := _said(outcome, self._protocol or "v4."):
            self._send(_NUMBERS["error"], said)
        self._connection.write(websocket.close())
        self._connection.close()


class _SpdyChannels(Channels):
    def __init__(self, upgraded: Upgraded, wanted: Wanted) -> None:
        super().__init__()
        self._connection: Duplex = upgraded.connection
        self._protocol = upgraded.protocol
        self._session = spdy.Session(client=False)
        sizes = wanted.tty and upgraded.protocol.startswith(("v3.", "v4."))
        there = (("stdin", wanted.stdin), ("stdout", wanted.stdout), ("stderr", wanted.stderr and not wanted.tty), ("resize", sizes))
        self._missing = {"error", *(name for name, is_there in there if is_there)}
        self._streams: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._early: list[spdy.Event] = []
        self._sizes = b""

    async def complete(self) -> None:
        """Wait for the streams. Raises ConnectionError, Refused."""
        while self._missing:
            data = await self._connection.read()
            if not data:
                raise ConnectionResetError("the client is gone")
            for event in self._events(data):
                if isinstance(event, spdy.Opened):
                    self._open(event)
                else:
                    self._early.append(event)

    def _events(self, data: bytes) -> list[spdy.Event]:
        try:
            return list(self._session.receive(data))
        except spdy.ProtocolError as error:
            raise ConnectionResetError(str(error)) from error

    def _open(self, opened: spdy.Opened) -> None:
        name = opened.headers.get("streamtype", "")
        if name not in self._missing:
            self._connection.write(self._session.reset(opened.stream, spdy.REFUSED_STREAM))
            return
        self._missing.discard(name)
        self._streams[name], self._names[opened.stream] = opened.stream, name
        self._connection.write(self._session.reply(opened.stream))

    async def run(self) -> None:
        try:
            for event in self._early:
                await self._heard(event)
            while data := await self._connection.read():
                for event in self._events(data):
                    await self._heard(event)
        except ConnectionResetError:
            return
        finally:
            self.stdin.end()
            self.gone.set()
            self._connection.close()  # also of a client that has taken leave and stays

    async def _heard(self, event: spdy.Event) -> None:
        match event:
            case spdy.Opened():
                self._open(event)
            case spdy.Data(stream, payload, fin):
                if self._names.get(stream) == "stdin":
                    await self.stdin.feed(payload)
                    if fin:
                        self.stdin.end()
                elif self._names.get(stream) == "resize":
                    self._resize(payload)
            case spdy.Reset(stream, _) if self._names.get(stream) == "stdin":
                self.stdin.end()
            case spdy.Ping(_, answer) if answer:
                self._connection.write(answer)
            case spdy.GoAway():
                raise ConnectionResetError("the client goes away")

    def _resize(self, payload: bytes) -> None:
        """Sizes are JSON objects, one a line."""
        *lines, self._sizes = (self._sizes + payload).split(b"\n")
        if self._sizes.endswith(b"}"):
            lines.append(self._sizes)
            self._sizes = b""
        self._sizes = self._sizes[-_SMALL:]
        for line in lines:
            if line.strip():
                self._resized(line)

    async def send(self, channel: str, data: bytes) -> None:
        await self._connection.drain()
        if channel in self._streams:
            self._connection.write(self._session.data(self._streams[channel], data))

    async def finish(self, outcome: Tree) -> None:
        self._connection.write(self._session.data(self._streams["error"], _said(outcome, self._protocol), fin=True))
        for name in ("stdout", "stderr"):
            if name in self._streams:
                self._connection.write(self._session.data(self._streams[name], b"", fin=True))
        self._connection.close()
