"""One JSON object a packet, descriptors beside it: how the command line, door, supervisor and agents speak on unix sockets.

What belongs here: framing only, no word's meaning. A SOCK_SEQPACKET socket keeps packets apart, so there is no parser and no
half message. A packet that is longer than a socket buffer of an ordinary user surely takes travels in a memfd, which is then the
last descriptor. Unix socket paths end at 107 bytes, a state directory may be deeper: ``open_at`` goes through a descriptor of the folder.

Source: unix(7), memfd_create(2).
"""

from __future__ import annotations

import array
import contextlib
import json
import mmap
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

INLINE_BYTES = 60_000
MOST_DESCRIPTORS = 16

Message = dict[str, Any]


class Closed(ConnectionError):
    """The other side has gone."""


class Packet(NamedTuple):
    """A message and the descriptors that came with it; whoever receives it closes them."""

    message: Message
    descriptors: tuple[int, ...]


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(connection: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one packet. The descriptors stay open here.

    Raises Closed when nobody is there any more, BlockingIOError when a non-blocking socket is full.
    """
    body = json.dumps(message, separators=(",", ":")).encode()
    with contextlib.ExitStack() as cleanup:
        if len(body) > INLINE_BYTES:
            spill = os.memfd_create("packet", os.MFD_CLOEXEC)
            cleanup.callback(os.close, spill)
            with open(spill, "wb", closefd=False) as stream:
                stream.write(body)
            body, descriptors = b'{"memfd":true}', (*descriptors, spill)
        try:
            socket.send_fds(connection, [body], list(descriptors)) if descriptors else connection.send(body)
        except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError, OSError) as error:
            if isinstance(error, BlockingIOError):
                raise
            raise Closed(str(error)) from None


def receive(connection: socket.socket) -> Packet:
    """Receive one packet. Raises Closed at the end, BlockingIOError when a non-blocking socket has none."""
    try:
        body, ancillary, _, _ = connection.recvmsg(INLINE_BYTES + 1, socket.CMSG_SPACE(MOST_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError as error:
        raise Closed(str(error)) from None
    descriptors = _descriptors(ancillary)
    if not body:
        _close(descriptors)
        raise Closed("the other side has closed the connection")
    try:
        message = json.loads(body)
        if message == {"memfd": True} and descriptors:
            spill = descriptors.pop()
            message = _read_spilled(spill)
        if not isinstance(message, dict):
            raise TypeError(f"expected an object, got {type(message).__name__}")
    except (ValueError, TypeError) as error:
        _close(descriptors)
        raise Closed(f"what came is no message: {error}") from None
    return Packet(message, tuple(descriptors))


def _read_spilled(spill: int) -> Any:
    # Mapped, not read: the file's position is the sender's, and belongs to both.
    try:
        with mmap.mmap(spill, 0, prot=mmap.PROT_READ) as body:
            return json.loads(bytes(body))
    finally:
        os.close(spill)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(found)


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


@contextlib.contextmanager
def _short(path: str) -> Iterator[str]:
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


def listen(path: str) -> socket.socket:
    """Make a listening socket at ``path`` (0600), in place of one that is there."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with _short(path) as short:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        before = os.umask(0o177)
        try:
            listener.bind(short)
        finally:
            os.umask(before)
    listener.listen(128)
    return listener


def connect(path: str, limit_s: float | None = None) -> socket.socket:
    """Connect to the socket at ``path``. Raises Closed when nobody listens there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(limit_s)
    try:
        with _short(path) as short:
            connection.connect(short)
    except OSError as error:
        connection.close()
        raise Closed(f"{path}: {error.strerror}") from None
    return connection
