"""A connection in both directions after its first protocol is done: read, write, wait; or joined to another one, byte for byte.

What arrives waits here until it is read, at most so much that the other side is told to wait (the transport stops reading). Two that are
joined hand on what they receive without a task in between, and each slows the other down when it cannot send.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, cast

_HIGH, _LOW = 1024 * 1024, 256 * 1024
WRITE_LIMIT: Final = 512 * 1024


class Duplex(asyncio.Protocol):
    """Give it to a transport. ``lost`` is set when the connection is gone."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._reading_paused = False
        self._news = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._other: Duplex | None = None

    # What its transport says ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(WRITE_LIMIT)

    def taken_over(self, transport: asyncio.Transport, early: bytes) -> None:
        """Go on with a connection that somebody else has begun; ``early``: what has already arrived."""
        self.connection_made(transport)
        transport.set_protocol(self)
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.transport.write(data)
            return
        self._pieces.append(data)
        self._size += len(data)
        self._news.set()
        if self._size >= _HIGH and not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        self._news.set()
        if self._other is not None:
            self._other.end()
            if self._other._ended:  # both have said everything
                self._other.close()
                self.close()
        return self.transport.get_extra_info("ssl_object") is None  # TLS ends in both directions at once

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._ended = True
        self.lost.set()
        self._news.set()
        self._writable.set()
        if self._other is not None:
            self._other.close()

    def pause_writing(self) -> None:
        self._writable.clear()
        if self._other is not None:
            self._other.transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable.set()
        if self._other is not None and not self._other.lost.is_set():
            self._other.transport.resume_reading()

    # What its user does -----------------------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """What has arrived; empty at the end."""
        while not self._pieces:
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = self._pieces.popleft()
        self._size -= len(data)
        if self._reading_paused and self._size <= _LOW and not self.lost.is_set():
            self._reading_paused = False
            self.transport.resume_reading()
        return data

    @property
    def ended(self) -> bool:
        """Whether the other side will send nothing more."""
        return self._ended

    @property
    def is_full(self) -> bool:
        """Whether what was sent waits, so that ``drain`` would wait."""
        return not self._writable.is_set()

    def unread(self, data: bytes) -> None:
        """Put back what was read too much."""
        if data:
            self._pieces.appendleft(data)
            self._size += len(data)

    def write(self, data: bytes) -> None:
        """Send; after much, wait with ``drain``."""
        if not self.lost.is_set():
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until more can be sent. Raises ConnectionResetError when the connection is gone."""
        await self._writable.wait()
        if self.lost.is_set():
            raise ConnectionResetError("the connection is gone")

    def end(self) -> None:
        """Say that nothing more will be sent; over TLS, end the connection."""
        if self.lost.is_set():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def close(self) -> None:
        """Send what is left and end the connection."""
        if not self.lost.is_set():
            self.transport.close()

    def join(self, other: Duplex) -> None:
        """From now on, what each receives the other sends."""
        self._other, other._other = other, self
        for one, its in ((self, other), (other, self)):
            while one._pieces:
                its.write(one._pieces.popleft())
            if one._reading_paused:
                one._reading_paused = False
                one.transport.resume_reading()
            if one.lost.is_set():
                its.close()
            elif one._ended:
                its.end()
            elif not its._writable.is_set():
                one.transport.pause_reading()
