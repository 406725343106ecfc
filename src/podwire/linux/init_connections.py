"""Who speaks to the first process of a PID namespace: connections that are accepted, read, answered, and never waited for.

An answer that does not fit into a client's socket waits here, with copies of its descriptors, and so long nothing more is read
from that client; a client that does not even take its news is cut off.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from podwire.linux import unix

#: How many messages may wait for a client that does not read.
_WAITING_MESSAGES: Final = 8_192
_LONGEST_COMPLAINT: Final = 2_000


class Refused(Exception):
    """A request that cannot be done. Not for the log: the one who asked is told."""

    def __init__(self, number: int, what: str) -> None:
        super().__init__(what)
        self.number = number


@dataclass
class Connection:
    """One client. ``watching``: it is told about every program's end."""

    socket: socket.socket
    watching: bool = False
    waiting: collections.deque[tuple[bytes, list[int]]] = field(default_factory=collections.deque)


#: Does what a request asks: its answer, or None when that comes later. What it keeps of the descriptors it takes from the list.
Handler = Callable[[Connection, unix.Message, list[int]], unix.Message | None]


class Connections:
    """All connections to one listening socket, in one epoll."""

    def __init__(self, poll: select.epoll, listening: socket.socket, handle: Handler, log: Callable[[str], None]) -> None:
        listening.setblocking(False)
        self._poll = poll
        self._listening = listening
        self._handle = handle
        self._log = log
        self._open: dict[int, Connection] = {}
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        poll.register(listening.fileno(), select.EPOLLIN)

    def on_event(self, fd: int, event: int) -> None:
        """What epoll reported for one of these descriptors; others are none of them any more."""
        if fd == self._listening.fileno():
            self._accept()
            return
        connection = self._open.get(fd)
        if connection is None:
            return
        if event & select.EPOLLOUT:
            self._flush(connection)
        if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and connection.socket.fileno() in self._open:
            self._read(connection)

    def watching(self) -> Iterator[Connection]:
        """Those that are told about every program's end."""
        return iter([connection for connection in self._open.values() if connection.watching])

    def leave(self) -> None:
        """In a forked child: close all of it."""
        for fd in (self._spare, self._listening.detach()):
            os.close(fd)
        for connection in self._open.values():
            connection.socket.close()

    def send(self, connection: Connection, message: unix.Message, descriptors: Sequence[int] = ()) -> None:
        """Answer, now or as soon as the client reads; to a client that is gone, nothing."""
        if connection.socket.fileno() not in self._open:
            return
        if len(connection.waiting) >= _WAITING_MESSAGES:
            self._log("a client that does not read is cut off")
            self._drop(connection)
            return
        data = unix.encode(message)
        if not connection.waiting:
            try:
                unix.send_bytes(connection.socket, data, descriptors)
            except BlockingIOError:
                self._poll.modify(connection.socket.fileno(), select.EPOLLOUT)
            except OSError:
                self._drop(connection)
                return
            else:
                return
        connection.waiting.append((data, _copies(descriptors)))

    def _accept(self) -> None:
        try:
            connected, _ = self._listening.accept()
        except BlockingIOError:
            return
        except OSError as refused:
            if refused.errno in {errno.EMFILE, errno.ENFILE}:
                # Take the connection with the spare descriptor and close it, or it would wake the loop for ever.
                os.close(self._spare)
                with contextlib.suppress(OSError):
                    self._listening.accept()[0].close()
                self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                self._log("a connection was refused: too many open files")
            return
        connected.setblocking(False)
        self._open[connected.fileno()] = Connection(connected)
        self._poll.register(connected.fileno(), select.EPOLLIN)

    def _read(self, connection: Connection) -> None:
        request: Any = None
        try:
            received = unix.receive(connection.socket)
            if received is None:
                self._drop(connection)
                return
            message, descriptors = received
            request = message.get("id")
            try:
                answer = self._handle(connection, message, descriptors)
            finally:
                for fd in descriptors:
                    os.close(fd)
            if answer is not None:
                self.send(connection, {"id": request, "ok": answer})
        except BlockingIOError:
            return
        except ConnectionError:
            self._drop(connection)
        except unix.MessageLost as lost:
            self._complain(connection, lost.message.get("id"), lost.errno, str(lost.strerror))
        except Refused as refused:
            self._complain(connection, request, refused.number, str(refused))
        except Exception as failure:  # noqa: BLE001, RUF100  (whatever a request led to: the others go on)
            number = failure.errno if isinstance(failure, OSError) else None
            self._complain(connection, request, number, f"{type(failure).__name__}: {failure}")

    def _complain(self, connection: Connection, request: Any, number: int | None, what: str) -> None:
        self.send(connection, {"id": request, "error": {"errno": number or errno.EINVAL, "what": what[:_LONGEST_COMPLAINT]}})

    def _flush(self, connection: Connection) -> None:
        try:
            while connection.waiting:
                data, descriptors = connection.waiting[0]
                unix.send_bytes(connection.socket, data, descriptors)
                connection.waiting.popleft()
                for fd in descriptors:
                    os.close(fd)
            self._poll.modify(connection.socket.fileno(), select.EPOLLIN)
        except BlockingIOError:
            return
        except OSError:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        fd = connection.socket.fileno()
        if self._open.pop(fd, None) is None:
            return
        self._poll.unregister(fd)
        connection.socket.close()
        for _, descriptors in connection.waiting:
            for held in descriptors:
                os.close(held)
        connection.waiting.clear()


def _copies(descriptors: Sequence[int]) -> list[int]:
    """Copies that outlive the originals: the one who asked gets what was there when it asked."""
    made: list[int] = []
    try:
        for fd in descriptors:
            made.append(os.dup(fd))  # noqa: PERF401  (what was made is closed when one fails)
    except OSError:
        for fd in made:
            os.close(fd)
        raise
    return made
