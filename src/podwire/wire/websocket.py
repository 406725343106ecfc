"""WebSocket (RFC 6455): the handshake's words, and frames of both sides. Sans-IO.

``Session`` takes what arrived and gives events; payload is handed on as it comes, never collected, so that a message may be of any length.
Libraries for servers collect messages and hide the connection below; here it carries other protocols' bytes, in bulk.

Not here: extensions (none is offered), what messages mean.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NORMAL, GOING_AWAY, PROTOCOL_ERROR_CODE, INTERNAL_ERROR = 1000, 1001, 1002, 1011
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_LONGEST_CONTROL: Final = 125


class ProtocolError(ValueError):
    """What arrived breaks the protocol."""


def accept_key(key: str) -> str:
    """What a server answers to a client's ``Sec-WebSocket-Key``."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + _GUID, usedforsecurity=False).digest()).decode()


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a message. ``first`` and ``last``: of that message. ``text``: it is a text message."""

    payload: bytes
    first: bool
    last: bool
    text: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """``answer``: to be sent back."""

    answer: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """The other side says that it has nothing more to send. ``answer``: to be sent back."""

    code: int
    answer: bytes


Event = Piece | Ping | Closed


def xor(payload: bytes, mask: bytes) -> bytes:
    """Mask or unmask. ``mask``: four bytes, the first of them for the first byte."""
    made = bytearray(payload)
    for place, byte in enumerate(mask):
        made[place::4] = made[place::4].translate(_tables(byte))
    return bytes(made)


@functools.cache
def _tables(byte: int) -> bytes:
    return bytes(value ^ byte for value in range(256))


def head(length: int, opcode: int = BINARY, *, masked: bool = False, last: bool = True) -> bytes:
    """What comes before a payload of that length (and, masked, before the mask)."""
    first, mask_bit = 0x80 * last | opcode, 0x80 * masked
    if length < 126:
        return bytes((first, mask_bit | length))
    if length < 65_536:
        return struct.pack(">BBH", first, mask_bit | 126, length)
    return struct.pack(">BBQ", first, mask_bit | 127, length)


def frame(payload: bytes, opcode: int = BINARY, *, mask: bytes = b"", last: bool = True) -> bytes:
    """A frame. A client's has a mask of four bytes."""
    begun = head(len(payload), opcode, masked=bool(mask), last=last)
    return begun + mask + xor(payload, mask) if mask else begun + payload


def close(code: int = NORMAL, reason: str = "", *, mask: bytes = b"") -> bytes:
    """A close frame."""
    return frame(struct.pack(">H", code) + reason.encode()[: _LONGEST_CONTROL - 2], CLOSE, mask=mask)


class Session:
    """What one side receives: a server's frames come masked, a client's do not. ``unmask`` may be a faster one."""

    def __init__(self, *, server: bool, unmask: Callable[[bytes, bytes], bytes] = xor) -> None:
        self._server = server
        self._unmask = unmask
        self._buffer = b""
        self._left = -1  # of the payload of the frame that is being read; -1: none is
        self._mask = b""
        self._opcode = self._message = 0  # of that frame, and of the message that it belongs to (0: none)
        self._begins = self._final = False

    def receive(self, data: bytes) -> Iterator[Event]:
        """The events in what arrived. Raises ProtocolError; then nothing more can be read from the connection."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        place = 0
        while True:
            if self._left < 0:
                head = self._head(data, place)
                if not head:
                    break
                place += head
            if self._opcode >= CLOSE:
                if len(data) - place < self._left:
                    break
                payload = self._taken(data[place : place + self._left])
                place += len(payload)
                yield from self._control(payload)
                continue
            piece = data[place : place + self._left]
            if not piece and self._left:
                break
            place += len(piece)
            payload = self._taken(piece)
            last = self._final and self._left < 0
            text = self._message == TEXT
            if last:
                self._message = 0
            yield Piece(payload, self._begins, last, text)
            self._begins = False
        self._buffer = data[place:]

    def _head(self, data: bytes, place: int) -> int:
        """Read the head of a frame; gives its length, 0 when it is not all there."""
        there = len(data) - place
        if there < 2:
            return 0
        first, second = data[place], data[place + 1]
        extended = {126: 2, 127: 8}.get(second & 0x7F, 0)
        size = 2 + extended + 4 * (second >> 7)
        if first & 0x70:
            raise ProtocolError("no extension was agreed upon")
        if bool(second & 0x80) != self._server:
            raise ProtocolError("frames of clients are masked, those of servers are not")
        opcode = first & 0x0F
        if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
            raise ProtocolError(f"opcode {opcode} is none")
        if opcode >= CLOSE and (extended or not first & 0x80):
            raise ProtocolError("a control frame is short and whole")
        if opcode < CLOSE and (opcode == CONTINUATION) != bool(self._message):
            raise ProtocolError("a message begins once and goes on")
        if there < size:
            return 0
        length = int.from_bytes(data[place + 2 : place + 2 + extended], "big") if extended else second & 0x7F
        self._left, self._opcode = length, opcode
        self._mask = data[place + size - 4 : place + size] if self._server else b""
        if opcode < CLOSE:
            self._final = bool(first & 0x80)
            if opcode:
                self._message, self._begins = opcode, True
        return size

    def _taken(self, piece: bytes) -> bytes:
        """Unmask a piece of the frame's payload."""
        self._left -= len(piece)
        if self._mask:
            shift, mask = len(piece) % 4, self._mask
            self._mask = mask[shift:] + mask[:shift]
            piece = self._unmask(piece, mask)
        if not self._left:
            self._left = -1
        return piece

    def _control(self, payload: bytes) -> Iterator[Event]:
        if self._opcode == PING:
            yield Ping(frame(payload, PONG, mask=b"" if self._server else b"\0\0\0\1"))
        elif self._opcode == CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else NORMAL
            yield Closed(code, close(code, mask=b"" if self._server else b"\0\0\0\1"))
