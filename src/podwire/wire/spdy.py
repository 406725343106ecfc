"""SPDY/3.1 as Kubernetes speaks it for exec, attach and port-forward: frames of streams over one connection. Sans-IO.

``Session`` takes what arrived and gives events; to send, ask it for bytes. Payload is handed on as it comes, never collected. Headers are
compressed over the whole connection with the dictionary of the protocol, so frames must be sent in the order in which they were made.

There is no flow control for each stream, as in the library that Kubernetes uses on both sides: it neither sends WINDOW_UPDATE nor heeds
it. Whoever cannot take more stops reading from the connection.

Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

VERSION: Final = 3
LONGEST_CONTROL: Final = 64 * 1024  # bytes of a control frame, and of its headers when they are unpacked
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_FIN: Final = 1
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, INTERNAL_ERROR = 1, 2, 3, 5, 6

# Section 2.6.10.1: words with their length before them, then texts.
_WORDS: Final = (
    b"options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|authori"
    b"zation|cache-control|connection|content-base|content-encoding|content-language|content-length|content-location|content-m"
    b"d5|content-range|content-type|date|etag|expect|expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-un"
    b"modified-since|last-modified|location|max-forwards|pragma|proxy-authenticate|proxy-authorization|range|referer|retry-aft"
    b"er|server|te|trailer|transfer-encoding|upgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|ver"
    b"sion|HTTP/1.1|url|public|set-cookie|keep-alive|origin"
)
_TEXTS: Final = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative Informat"
    b"ion204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error"
    b"501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, "
    b"Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/"
    b"javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = b"".join(struct.pack(">I", len(word)) + word for word in _WORDS.split(b"|")) + _TEXTS

_CONTROL = struct.Struct(">HHI")  # control bit and version, type, flags and length
_DATA = struct.Struct(">II")  # stream, flags and length
_NUMBER = struct.Struct(">I")
_PAIR = struct.Struct(">II")
_SYN = struct.Struct(">IIH")  # stream, associated stream, priority and slot

Headers = Mapping[str, str]


class ProtocolError(ValueError):
    """What arrived is not SPDY/3.1, or more than is taken."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The other side has opened a stream. Names of headers are in lower case. ``fin``: it will send nothing on it."""

    stream: int
    headers: Headers
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Replied:
    """The other side has taken a stream that this side opened."""

    stream: int
    headers: Headers
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of what the other side sends; with ``fin`` the last one."""

    stream: int
    payload: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """``answer``: to be sent back; empty for the answer to a ping of this side."""

    number: int
    answer: bytes


@dataclass(frozen=True, slots=True)
class GoAway:
    last_stream: int
    status: int


Event = Opened | Replied | Data | Reset | Ping | GoAway


class Session:
    """One side of a connection: the client's streams have odd numbers."""

    def __init__(self, *, client: bool) -> None:
        self._client = client
        self._next = 1 if client else 2
        self._last_heard = 0
        self._packing = zlib.compressobj(zdict=DICTIONARY)
        self._unpacking = zlib.decompressobj(zdict=DICTIONARY)
        self._buffer = b""
        self._stream, self._left, self._stream_fin = 0, 0, False  # of the data frame that is being read

    # What arrives -----------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> Iterator[Event]:
        """The events in what arrived. Raises ProtocolError; then nothing more can be read from the connection."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        place, end = 0, len(data)
        while place < end:
            if self._left:
                piece = data[place : place + self._left]
                place += len(piece)
                self._left -= len(piece)
                yield Data(self._stream, piece, self._stream_fin and not self._left)
                continue
            if end - place < _DATA.size:
                break
            first, second = _DATA.unpack_from(data, place)
            flags, length = second >> 24, second & 0xFFFFFF
            if not first & 0x80000000:
                place += _DATA.size
                self._stream, self._left, self._stream_fin = first, length, bool(flags & _FIN)
                if not length:
                    yield Data(first, b"", self._stream_fin)
                continue
            if length > LONGEST_CONTROL:
                raise ProtocolError(f"a control frame of {length} bytes")
            if end - place < _DATA.size + length:
                break
            body = data[place + _DATA.size : place + _DATA.size + length]
            place += _DATA.size + length
            if first >> 16 != 0x8000 | VERSION:
                raise ProtocolError(f"version {first >> 16 & 0x7FFF} of SPDY is not spoken here")
            event = self._control(first & 0xFFFF, flags, body)
            if event is not None:
                yield event
        self._buffer = data[place:]

    def _control(self, kind: int, flags: int, body: bytes) -> Event | None:
        try:
            match kind:
                case 1:
                    stream, _, _ = _SYN.unpack_from(body)
                    headers = self._unpack(body[_SYN.size :])
                    if stream & 1 == self._client or stream <= self._last_heard:
                        raise ProtocolError(f"stream {stream} cannot be opened")
                    self._last_heard = stream
                    return Opened(stream, headers, bool(flags & _FIN))
                case 2:
                    return Replied(_NUMBER.unpack_from(body)[0], self._unpack(body[_NUMBER.size :]), bool(flags & _FIN))
                case 3:
                    return Reset(*_PAIR.unpack(body))
                case 6:
                    (number,) = _NUMBER.unpack(body)
                    ours = bool(number & 1) == self._client
                    return Ping(number, b"" if ours else _CONTROL.pack(0x8000 | VERSION, _PING, 4) + body)
                case 7:
                    return GoAway(*_PAIR.unpack(body))
                case 8:
                    self._unpack(body[_NUMBER.size :])  # nothing here sends later headers, but the compression goes on
                    return None
                case _:
                    return None  # SETTINGS, WINDOW_UPDATE and what is to come: "must be ignored" (section 2.2.1)
        except struct.error as error:
            raise ProtocolError(f"a frame of type {kind} is too short") from error

    def _unpack(self, packed: bytes) -> Headers:
        try:
            block = self._unpacking.decompress(packed, LONGEST_CONTROL)
        except zlib.error as error:
            raise ProtocolError(f"headers cannot be unpacked: {error}") from error
        if self._unpacking.unconsumed_tail:
            raise ProtocolError(f"headers of more than {LONGEST_CONTROL} bytes")
        (count,) = _NUMBER.unpack_from(block)
        place, headers = _NUMBER.size, {}
        for _ in range(count):
            texts = []
            for _ in range(2):
                (length,) = _NUMBER.unpack_from(block, place)
                place += _NUMBER.size
                if length > len(block) - place:
                    raise ProtocolError("a header is longer than its frame")
                texts.append(block[place : place + length].decode("latin-1"))
                place += length
            headers[texts[0].lower()] = texts[1].split("\0")[0]
        return headers

    # What is sent -------------------------------------------------------------------------------------------------------------

    def open(self, headers: Headers, *, fin: bool = False) -> tuple[int, bytes]:
        """Open a stream; gives its number."""
        stream, self._next = self._next, self._next + 2
        return stream, self._frame(_SYN_STREAM, _FIN * fin, _SYN.pack(stream, 0, 0) + self._pack(headers))

    def reply(self, stream: int, headers: Headers | None = None, *, fin: bool = False) -> bytes:
        """Take a stream that the other side opened."""
        return self._frame(_SYN_REPLY, _FIN * fin, _NUMBER.pack(stream) + self._pack(headers or {}))

    @staticmethod
    def head(stream: int, length: int, *, fin: bool = False) -> bytes:
        """What comes before a piece of that length, at most 16 MiB less one byte."""
        return _DATA.pack(stream, (_FIN * fin) << 24 | length)

    @classmethod
    def data(cls, stream: int, payload: bytes, *, fin: bool = False) -> bytes:
        """A piece of a stream."""
        return cls.head(stream, len(payload), fin=fin) + payload

    def reset(self, stream: int, status: int = CANCEL) -> bytes:
        """End a stream in both directions."""
        return self._frame(_RST_STREAM, 0, _PAIR.pack(stream, status))

    def ping(self, number: int) -> bytes:
        return self._frame(_PING, 0, _NUMBER.pack(number))

    def go_away(self, status: int = 0) -> bytes:
        """Say that no more streams are taken."""
        return self._frame(_GOAWAY, 0, _PAIR.pack(self._last_heard, status))

    @staticmethod
    def _frame(kind: int, flags: int, body: bytes) -> bytes:
        return _CONTROL.pack(0x8000 | VERSION, kind, flags << 24 | len(body)) + body

    def _pack(self, headers: Headers) -> bytes:
        block = [_NUMBER.pack(len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode("latin-1"), value.encode("latin-1")):
                block += [_NUMBER.pack(len(text)), text]
        return self._packing.compress(b"".join(block)) + self._packing.flush(zlib.Z_SYNC_FLUSH)
