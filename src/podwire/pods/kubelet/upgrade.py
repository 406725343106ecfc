"""How a request becomes a stream: the handshakes of WebSocket and SPDY/3.1, and bytes tunnelled in WebSocket messages.

Which protocol is spoken within is agreed upon in the handshake: ``Sec-WebSocket-Protocol``, or ``X-Stream-Protocol-Version`` for SPDY. The
client names what it can, best first; what the server prefers among those is chosen.

Sources: RFC 6455 section 4; https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming (and the names that kubectl sends).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from podwire.daemon.duplex import Duplex
from podwire.daemon.http_server import EXTENSION
from podwire.wire import websocket

try:
    from aiohttp._websocket.helpers import websocket_mask
except ImportError:  # it is not a public part of that library

    def unmask(payload: bytes, mask: bytes) -> bytes:
        return websocket.xor(payload, mask)
else:

    def unmask(payload: bytes, mask: bytes) -> bytes:
        made = bytearray(payload)
        websocket_mask(mask, made)
        return bytes(made)


SPDY = "SPDY/3.1"


class Refused(Exception):
    """A request that is not upgraded. ``headers`` go into the answer."""

    def __init__(self, code: int, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(message)
        self.code, self.headers = code, tuple(headers)


@dataclass(frozen=True)
class Upgraded:
    """``websocket``: else it is SPDY. ``protocol``: what was agreed upon; empty: nothing was asked for."""

    connection: Duplex
    websocket: bool
    protocol: str


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    found = [value.decode("latin-1") for key, value in headers if key == name]
    return [word.strip() for value in found for word in value.split(",") if word.strip()]


def upgrade(scope: dict[str, Any], *, websockets: Sequence[str], spdy: Sequence[str]) -> Upgraded:
    """Take the connection over. ``websockets``, ``spdy``: the protocols that are spoken, best first. Raises Refused (400, 403)."""
    headers, extension = scope["headers"], scope["extensions"][EXTENSION]
    wanted = [word.lower() for word in _values(headers, b"upgrade")]
    if "take_over" not in extension or not wanted:
        raise Refused(
            400, "unable to upgrade: missing upgrade headers in request: the connection must be upgraded to WebSocket or SPDY/3.1"
        )
    if "websocket" in wanted:
        return _websocket(headers, extension["take_over"], websockets)
    if SPDY.lower() not in wanted:
        raise Refused(400, f"unable to upgrade: unknown protocol {wanted[0]}")
    offered = _values(headers, b"x-stream-protocol-version")
    chosen = next((name for name in spdy if name in offered), None)
    if chosen is None:
        if offered or not spdy:
            accepted = [(b"x-accepted-stream-protocol-versions", name.encode()) for name in spdy]
            raise Refused(403, _disagreement(offered, spdy), accepted)
        chosen = spdy[-1]
    connection: Duplex = extension["take_over"]()
    connection.write(_switching(f"Upgrade: {SPDY}", f"X-Stream-Protocol-Version: {chosen}"))
    return Upgraded(connection, False, chosen)


def _websocket(headers: Sequence[tuple[bytes, bytes]], take_over: Callable[[], Duplex], known: Sequence[str]) -> Upgraded:
    key = _values(headers, b"sec-websocket-key")
    if not key or _values(headers, b"sec-websocket-version") != ["13"]:
        raise Refused(400, "unable to upgrade: a WebSocket handshake has Sec-WebSocket-Key and Sec-WebSocket-Version: 13")
    offered = _values(headers, b"sec-websocket-protocol")
    chosen = next((name for name in known if name in offered), "")
    if offered and not chosen:
        raise Refused(403, _disagreement(offered, known))
    connection = take_over()
    lines = ["Upgrade: websocket", f"Sec-WebSocket-Accept: {websocket.accept_key(key[0])}"]
    connection.write(_switching(*lines, *([f"Sec-WebSocket-Protocol: {chosen}"] if chosen else [])))
    return Upgraded(connection, True, chosen)


def _switching(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in ("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", *lines, "")).encode()


def _disagreement(offered: Sequence[str], known: Sequence[str]) -> str:
    return f"unable to upgrade: unable to negotiate protocol: client supports [{' '.join(offered)}], server accepts [{' '.join(known)}]"


class Bytes(Protocol):
    """A connection that carries bytes: itself, or in WebSocket messages."""

    async def read(self) -> bytes: ...
    def write(self, *parts: bytes) -> None: ...
    async def drain(self) -> None: ...
    def close(self) -> None: ...


class Plain:
    """The connection itself."""

    def __init__(self, connection: Duplex) -> None:
        self._connection = connection
        self.read, self.drain, self.close = connection.read, connection.drain, connection.close

    def write(self, *parts: bytes) -> None:
        self._connection.write(parts[0] if len(parts) == 1 else b"".join(parts))


class Tunnel:
    """Bytes in binary messages; where a message begins means nothing."""

    def __init__(self, connection: Duplex) -> None:
        self._connection = connection
        self._session = websocket.Session(server=True, unmask=unmask)
        self.drain = connection.drain
        self._over = False

    async def read(self) -> bytes:
        """What has arrived; empty at the end. Raises websocket.ProtocolError."""
        while not self._over:
            data = await self._connection.read()
            if not data:
                break
            pieces = []
            for event in self._session.receive(data):
                if isinstance(event, websocket.Piece):
                    pieces.append(event.payload)
                else:
                    self._connection.write(event.answer)
                    self._over = self._over or isinstance(event, websocket.Closed)
            if joined := b"".join(pieces):
                return joined
        return b""

    def write(self, *parts: bytes) -> None:
        self._connection.write(b"".join((websocket.head(sum(map(len, parts))), *parts)))

    def close(self) -> None:
        if not self._over:
            self._over = True
            self._connection.write(websocket.close())
        self._connection.close()
