"""The supervisor's end of the control socket: who is heard, which word does what.

What belongs here: connections and the table of words (docs/architecture.md, "the control socket"). What must not: how a word
is carried out. Only the cluster's own user is heard: the socket's mode says so, and the peer's uid is checked as well.
A connection that does not take what it is sent is closed, so nobody can hold the supervisor up.

Source: unix(7), SO_PEERCRED.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from podwire.cluster import packets
from podwire.cluster.loop import Loop
from podwire.cluster.packets import Message


class Refused(Exception):
    """A request that is not carried out; the text is the answer."""


class Caller:
    """One connection. ``on_gone`` are called when the other side has gone."""

    def __init__(self, connection: socket.socket, drop: Callable[[Caller], None]) -> None:
        self.connection = connection
        self.on_gone: list[Callable[[], None]] = []
        self._drop = drop

    def tell(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send one message, now or never."""
        if self.connection.fileno() < 0:
            return
        try:
            packets.send(self.connection, message, descriptors)
        except (packets.Closed, BlockingIOError):
            self._drop(self)


# A word takes the request, its descriptors (closed afterwards) and the caller; None means that it answers later by itself.
Word = Callable[[Message, tuple[int, ...], Caller], Message | None]


class Control:
    def __init__(self, loop: Loop, listener: socket.socket, words: Mapping[str, Word]) -> None:
        self._loop = loop
        self._listener = listener
        self._words = words
        self._callers: set[Caller] = set()
        listener.setblocking(False)
        loop.on_readable(listener.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        if _peer_uid(connection) != os.getuid():
            connection.close()
            return
        connection.setblocking(False)
        caller = Caller(connection, self._drop)
        self._callers.add(caller)
        self._loop.on_readable(connection.fileno(), lambda: self._hear(caller))

    def _hear(self, caller: Caller) -> None:
        try:
            message, descriptors = packets.receive(caller.connection)
        except BlockingIOError:
            return
        except packets.Closed:
            self._drop(caller)
            return
        try:
            answer = self._carry_out(message, descriptors, caller)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if answer is not None:
            caller.tell(answer)

    def _carry_out(self, message: Message, descriptors: tuple[int, ...], caller: Caller) -> Message | None:
        word = self._words.get(str(message.get("request")))
        if word is None:
            return {"error": f"unknown request {message.get('request')!r}"}
        try:
            return word(message, descriptors, caller)
        except Refused as refused:
            return {"error": str(refused)}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"request {message.get('request')!r} is not as expected: {error!r}"}
        except OSError as error:
            return {"error": str(error)}

    def _drop(self, caller: Caller) -> None:
        if caller not in self._callers:
            return
        self._callers.discard(caller)
        self._loop.forget(caller.connection.fileno())
        caller.connection.close()
        for callback in caller.on_gone:
            with contextlib.suppress(OSError):
                callback()


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    fields: tuple[Any, ...] = struct.unpack("iII", credentials)
    return int(fields[1])
