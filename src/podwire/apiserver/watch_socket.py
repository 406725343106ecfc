"""A watch over a WebSocket, for clients that live in a browser and some that do not: each event is a text message.

What a client says is not listened to, but for its leave. Here: the handshake and the messages. Not here: what is watched (``watch.py``).

Source: RFC 6455; https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from podwire.apiserver.answers import Stream
from podwire.daemon.duplex import Duplex
from podwire.wire import websocket


def handshake(headers: Mapping[bytes, bytes]) -> bytes:
    """Give the answer to a request for a WebSocket; empty for any other request."""
    key, version = headers.get(b"sec-websocket-key", b""), headers.get(b"sec-websocket-version", b"")
    if headers.get(b"upgrade", b"").lower() != b"websocket" or not key or version != b"13":
        return b""
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Connection: Upgrade", b"Upgrade: websocket"]
    lines.append(b"Sec-WebSocket-Accept: " + websocket.accept_key(key.decode("latin-1")).encode())
    offered = headers.get(b"sec-websocket-protocol", b"").split(b",")[0].strip()
    if offered:
        lines.append(b"Sec-WebSocket-Protocol: " + offered)
    return b"\r\n".join([*lines, b"", b""])


async def serve(stream: Stream, answer: bytes, connection: Duplex) -> None:
    """Send a watch until it ends or its client does. ``answer`` is the handshake's."""
    assert stream.stop is not None
    stream.abort = connection.transport.abort
    connection.write(answer)
    hearing = asyncio.create_task(_hear(connection, stream.stop))
    try:
        async for piece in stream.pieces:
            connection.write(b"".join([websocket.frame(line, websocket.TEXT) for line in piece.splitlines()]))
            await connection.drain()
        connection.write(websocket.close())
    except ConnectionResetError:
        return
    finally:
        hearing.cancel()
        connection.close()


async def _hear(connection: Duplex, stop: Callable[[], None]) -> None:
    """Wait until the client takes leave or is gone."""
    session = websocket.Session(server=True)
    try:
        while data := await connection.read():
            for event in session.receive(data):
                if not isinstance(event, websocket.Piece):
                    connection.write(event.answer)
                if isinstance(event, websocket.Closed):
                    return
    except websocket.ProtocolError:
        connection.write(websocket.close(websocket.PROTOCOL_ERROR_CODE))
    finally:
        stop()
