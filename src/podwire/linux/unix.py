"""Unix sockets: long paths, and JSON messages with descriptors beside them.

A path in a socket address ends at 108 bytes; a state directory may be deeper. Where the path is longer, its folder is opened
and the socket named through ``/proc/self/fd``. A message is one JSON object in one packet (SOCK_SEQPACKET), which keeps
descriptors with the message that they belong to.

Source: unix(7).
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any, Final

#: The kernel takes no more descriptors in one message (SCM_MAX_FD).
MAX_DESCRIPTORS: Final = 253
#: Of one message. An ordinary user's socket buffer is 212,992 bytes.
MAX_MESSAGE: Final = 180_000
_PATH_LIMIT: Final = 107

Message = dict[str, Any]


class MessageLost(OSError):
    """A message did not fit into its buffer, or its descriptors did not fit into this process's table.

    ``message`` is what is left of it: all but its descriptors in the second case, nothing in the first.
    """

    def __init__(self, number: int, what: str, message: Message | None = None) -> None:
        super().__init__(number, what)
        self.message = message or {}


@contextlib.contextmanager
def _reachable(path: str) -> Iterator[str]:
    if len(os.fsencode(path)) <= _PATH_LIMIT:
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


def listen(path: str, kind: int = socket.SOCK_SEQPACKET, *, backlog: int = 128) -> socket.socket:
    """A socket that listens at ``path``, for this user alone. A socket that was left there before is replaced at once."""
    listening = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    new = f"{path}.{os.getpid()}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        with _reachable(new) as name:
            listening.bind(name)
        os.chmod(new, 0o600)
        listening.listen(backlog)
        os.rename(new, path)  # whoever finds the name finds a socket that listens
    except OSError as refused:
        listening.close()
        raise OSError(refused.errno, f"listen on {path}: {os.strerror(refused.errno or 0)}") from refused
    return listening


def connect(path: str, kind: int = socket.SOCK_SEQPACKET, *, timeout_s: float | None = None) -> socket.socket:
    """A socket connected to the one that listens at ``path``; ``timeout_s`` stays set on it."""
    connected = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    try:
        connected.settimeout(timeout_s)
        with _reachable(path) as name:
            connected.connect(name)
    except OSError as refused:
        connected.close()
        if refused.errno is None:
            raise
        raise type(refused)(refused.errno, f"connect to {path}: {os.strerror(refused.errno)}") from refused
    return connected


def encode(message: Message) -> bytes:
    """The bytes of a message.

    Raises:
        MessageLost: it is longer than a packet may be.
    """
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise MessageLost(errno.EMSGSIZE, f"a message of {len(data)} bytes is longer than {MAX_MESSAGE}")
    return data


def send_bytes(through: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one encoded message."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    through.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)


def send(through: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> None:
    """Send one message with descriptors, of which the receiver gets copies."""
    send_bytes(through, encode(message), descriptors)


def receive(through: socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its descriptors, which are the caller's to close; None at the end of the connection.

    Raises:
        MessageLost: something was cut off; what arrived of its descriptors is closed.
        ValueError, TypeError: no JSON object; its descriptors are closed.
    """
    data, ancillary, flags, _ = through.recvmsg(MAX_MESSAGE + 1, socket.CMSG_SPACE(4 * MAX_DESCRIPTORS), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    try:
        if flags & socket.MSG_TRUNC or len(data) > MAX_MESSAGE:
            raise MessageLost(errno.EMSGSIZE, f"a message was longer than {MAX_MESSAGE} bytes")
        if not data and not descriptors:
            return None
        message = json.loads(data)
        if not isinstance(message, dict):
            raise TypeError("a message is a JSON object")
        if flags & socket.MSG_CTRUNC:
            raise MessageLost(errno.EMFILE, "the descriptors of a message did not fit: too many open files in the receiver", message)
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise
    return message, list(descriptors)
