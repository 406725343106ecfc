"""One TCP connection of a stand-in, and one UDP port: the thin I/O around the sessions.

A client whose first bytes could still become a request (``HELLO`` might be a method) is given a moment to go on, and is
echoed when it does not. A client that does not read is not read from either.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from podwire.pods.standins.session import Echo, Place, Session, Speech, recognise

PATIENCE = 0.2
"""Seconds that undecided first bytes may wait for more."""


def session_for(place: Place, speech: Speech, wake: Callable[[], None] = lambda: None) -> Session:
    """The session for a protocol; ``wake`` is called when it has something to say later. What it needs is imported when first spoken."""
    if speech is Speech.HTTP1:
        from podwire.pods.standins.http1 import Http1

        return Http1(place, wake)
    if speech is Speech.HTTP2:
        from podwire.pods.standins.http2 import Http2

        return Http2(place, wake)
    if speech is Speech.TLS:
        from podwire.pods.standins.tls import Tls

        return Tls(lambda first: session_for(place, recognise(first), wake))
    return Echo()


class Connection(asyncio.Protocol):
    """From accept to close. ``open_connections`` is the Pod's set of these, so that they can end with the Pod; ``resets`` says whether this
    one is to be reset at once.
    """

    def __init__(
        self, place: Callable[[tuple[str, int]], Place], open_connections: set[Connection], resets: Callable[[], bool] = lambda: False
    ) -> None:
        self._place_of = place
        self._all = open_connections
        self._resets = resets
        self._session: Session | None = None
        self._first = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not asserted: the transports of other event loops are of classes of their own.
        self._transport = cast("asyncio.Transport", transport)
        self._all.add(self)
        if self._resets():
            self._reset()
            return
        peer = self._transport.get_extra_info("peername") or ("", 0)
        self._place = self._place_of((str(peer[0]), int(peer[1])))
        self._session = self._place.part.talk(self._place)
        if self._session is not None:
            self._receive(b"")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (why it ended is nobody's concern)
        self._all.discard(self)
        self._stop_waiting()
        if self._session is not None:
            self._session.close()

    def data_received(self, data: bytes) -> None:
        if self._session is None:
            self._first += data
            speech = recognise(self._first)
            if speech is Speech.UNDECIDED:
                self._timer = self._timer or asyncio.get_running_loop().call_later(PATIENCE, self._begin, Speech.ECHO)
                return
            self._begin(speech)
        else:
            self._receive(data)

    def eof_received(self) -> bool:
        if self._session is None and self._first:
            self._begin(Speech.ECHO)
        return False  # what is still to be sent is sent, then the connection is closed

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()

    def _begin(self, speech: Speech) -> None:
        self._stop_waiting()
        self._session = session_for(self._place, speech, self._wake)
        first, self._first = self._first, b""
        self._receive(first)

    def _wake(self) -> None:
        if not self._transport.is_closing():
            self._receive(b"")

    def _reset(self) -> None:
        # Closed with nothing to linger for, a connection ends with RST: socket(7), SO_LINGER.
        accepted = self._transport.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _receive(self, data: bytes) -> None:
        assert self._session is not None
        if said := self._session.receive(data):
            self._transport.write(said)
        if self._session.closing:
            self._transport.close()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Datagrams(asyncio.DatagramProtocol):
    """A UDP port: gives each caller its part's answer."""

    def __init__(self, place: Callable[[tuple[str, int]], Place]) -> None:
        self._place = place

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        place = self._place((str(addr[0]), int(addr[1])))
        said = place.part.datagram(place, data)
        if said is not None:
            self._transport.sendto(said, addr)

    def error_received(self, exc: Exception) -> None:
        """A caller that went away before its answer (ICMP) is no error of ours."""
