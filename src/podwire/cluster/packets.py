"""How the command line, door and supervisor speak: packets of ``linux.unix``, of any length.

What belongs here: framing only, no word's meaning. A message that is longer than a socket buffer of an ordinary user surely
takes (an environment, the report of a large cluster) travels in a memfd, which is then the last descriptor.

Source: unix(7), memfd_create(2).
"""

from __future__ import annotations

import json
import mmap
import os
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from podwire.linux import unix

INLINE_BYTES = 60_000

Message = dict[str, Any]


class Closed(ConnectionError):
    """The other side has gone, or what it sends is no message."""


class Packet(NamedTuple):
    """A message and the descriptors that came with it; whoever receives it closes them."""

    message: Message
    descriptors: tuple[int, ...]


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def listen(path: str) -> socket.socket:
    return unix.listen(path)


def connect(path: str) -> socket.socket:
    """Connect to the socket at ``path``. Raises Closed when nobody listens there."""
    try:
        return unix.connect(path)
    except OSError as error:
        raise Closed(str(error)) from None


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one packet. The descriptors stay open here.

    Raises Closed when nobody is there any more, BlockingIOError when a non-blocking socket is full.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    spill = None
    if len(body) > INLINE_BYTES:
        spill = os.memfd_create("packet", os.MFD_CLOEXEC)
        with open(spill, "wb", closefd=False) as stream:
            stream.write(body)
        body, descriptors = b'{"memfd":true}', (*descriptors, spill)
    try:
        unix.send_bytes(connection, body, descriptors)
    except BlockingIOError:
        raise
    except OSError as error:
        raise Closed(str(error)) from None
    finally:
        if spill is not None:
            os.close(spill)


def receive(connection: socket.socket) -> Packet:
    """Receive one packet. Raises Closed at the end, BlockingIOError when a non-blocking socket has none."""
    try:
        received = unix.receive(connection)
    except BlockingIOError:
        raise
    except (OSError, ValueError) as error:
        raise Closed(str(error)) from None
    if received is None:
        raise Closed("the other side has closed the connection")
    message, descriptors = received
    if message == {"memfd": True} and descriptors:
        message = _read_spilled(descriptors.pop())
    return Packet(message, tuple(descriptors))


def _read_spilled(spill: int) -> Message:
    # Mapped, not read: the file's position is the sender's, and belongs to both.
    try:
        with mmap.mmap(spill, 0, prot=mmap.PROT_READ) as body:
            message = json.loads(bytes(body))
    except (OSError, ValueError) as error:
        raise Closed(f"what came is no message: {error}") from None
    finally:
        os.close(spill)
    if not isinstance(message, dict):
        raise Closed(f"what came is no message: {type(message).__name__}")
    return message
