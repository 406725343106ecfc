"""Netlink framing: bytes to messages and back.

Here: the header, attributes, acknowledgements with their extended part, the end of a dump. Not here: what any family of
messages means (``rtnetlink``, ``nfnetlink``), and no socket.

A datagram holds messages one after the other, each padded to four bytes; a message is a header of 16 bytes and a payload;
most payloads are a fixed structure of the family and then attributes: length, type, value, padded to four bytes. All
integers are in the host's order unless an attribute says otherwise (netfilter writes big-endian). A request with ``ACK`` is
answered by exactly one ``ERROR`` message whose error number is 0 when it was carried out, one without only when it was not; a dump
by messages with ``MULTI`` and then one ``DONE``.

Encoders return bytes that are already padded, so that they are joined, not copied: ``b"".join`` of a few hundred small
pieces is the fastest way there is from Python. Decoders take one datagram and return slices of it.

Sources: RFC 3549; Documentation/userspace-api/netlink/intro.rst and include/uapi/linux/netlink.h of the Linux kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from struct import Struct, error
from typing import Final, NamedTuple

# Message types of every family; the families' own begin at 16.
NOOP: Final = 1
ERROR: Final = 2
DONE: Final = 3
OVERRUN: Final = 4

# Flags of a request.
REQUEST: Final = 0x001
MULTI: Final = 0x002
ACK: Final = 0x004
ECHO: Final = 0x008
DUMP_INTR: Final = 0x010  # a dump saw two states of the kernel: ask again
ROOT: Final = 0x100
MATCH: Final = 0x200
DUMP: Final = 0x300
REPLACE: Final = 0x100
EXCL: Final = 0x200
CREATE: Final = 0x400
APPEND: Final = 0x800
NONREC: Final = 0x100
# Flags of an ERROR or DONE.
CAPPED: Final = 0x100  # the request is repeated without its payload
ACK_TLVS: Final = 0x200  # attributes follow

# Options of the socket (level SOL_NETLINK), for those who open one.
SOL_NETLINK: Final = 270
ADD_MEMBERSHIP: Final = 1
DROP_MEMBERSHIP: Final = 2
NO_ENOBUFS: Final = 5
CAP_ACK: Final = 10
EXT_ACK: Final = 11
GET_STRICT_CHK: Final = 12
NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

NESTED: Final = 0x8000
NET_BYTEORDER: Final = 0x4000
TYPE_MASK: Final = 0x3FFF

HEADER: Final = Struct("=IHHII")
_FLAGS: Final = Struct("=H")
ATTRIBUTE: Final = Struct("=HH")
_ERROR: Final = Struct("=i")
_U8, _U16, _U32, _U64, _I32 = (Struct(f"=HH{code}") for code in ("B3x", "H2x", "I", "Q", "i"))
_BE16, _BE32, _BE64 = Struct(">H"), Struct(">I"), Struct(">Q")
_PADDING: Final = (b"", b"\0\0\0", b"\0\0", b"\0")

_EXT_ACK_MESSAGE, _EXT_ACK_OFFSET = 1, 2


class MalformedNetlink(ValueError):
    """Bytes that are no netlink message: a length that does not fit what holds it."""


class Message(NamedTuple):
    """One message. ``payload`` begins after the header: the family's structure, then attributes."""

    type: int
    flags: int
    sequence: int
    port: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The kernel's answer to one request.

    ``errno`` is 0 when it was carried out, else a positive error number. ``hint`` is the kernel's own words (extended
    acknowledgement), often empty; ``offset`` is where in the request the attribute stands that it means, or None.
    """

    sequence: int
    errno: int
    hint: str = ""
    offset: int | None = None


# ---------------------------------------------------------------------------------------------------------- to bytes


def message(kind: int, flags: int, sequence: int, payload: bytes, port: int = 0) -> bytes:
    """One message. The payload must be padded already, as that made of the encoders below is."""
    return HEADER.pack(16 + len(payload), kind, flags, sequence, port) + payload


def flagged(made: bytes, flags: int) -> bytes:
    """A message with more flags than it was made with."""
    return made[:6] + _FLAGS.pack(_FLAGS.unpack_from(made, 6)[0] | flags) + made[8:]


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute with these bytes, padded to four."""
    size = len(value)
    return ATTRIBUTE.pack(4 + size, kind) + value + _PADDING[size & 3]


def nested(kind: int, *parts: bytes) -> bytes:
    """An attribute that holds attributes, marked so."""
    value = b"".join(parts)
    return ATTRIBUTE.pack(4 + len(value), kind | NESTED) + value


def flag(kind: int) -> bytes:
    """An attribute without a value."""
    return ATTRIBUTE.pack(4, kind)


def string(kind: int, text: str) -> bytes:
    """A string, ended by a zero byte, as names are."""
    return attribute(kind, text.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    """An unsigned integer of one byte."""
    return _U8.pack(5, kind, value)


def u16(kind: int, value: int) -> bytes:
    """An unsigned integer of two bytes, host order."""
    return _U16.pack(6, kind, value)


def u32(kind: int, value: int) -> bytes:
    """An unsigned integer of four bytes, host order."""
    return _U32.pack(8, kind, value)


def u64(kind: int, value: int) -> bytes:
    """An unsigned integer of eight bytes, host order."""
    return _U64.pack(12, kind, value)


def i32(kind: int, value: int) -> bytes:
    """A signed integer of four bytes, host order."""
    return _I32.pack(8, kind, value)


def be16(kind: int, value: int) -> bytes:
    """An unsigned integer of two bytes, network order."""
    return attribute(kind, _BE16.pack(value))


def be32(kind: int, value: int) -> bytes:
    """An unsigned integer of four bytes, network order."""
    return ATTRIBUTE.pack(8, kind) + _BE32.pack(value)


def be64(kind: int, value: int) -> bytes:
    """An unsigned integer of eight bytes, network order."""
    return ATTRIBUTE.pack(12, kind) + _BE64.pack(value)


# -------------------------------------------------------------------------------------------------------- from bytes


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of a datagram, in order.

    Raises:
        MalformedNetlink: a message says that it is longer than the datagram, or shorter than its header.
    """
    offset, end = 0, len(datagram)
    while end - offset >= 16:
        size, kind, flags, sequence, port = HEADER.unpack_from(datagram, offset)
        if size < 16 or offset + size > end:
            raise MalformedNetlink(f"a message at byte {offset} says {size} bytes where {end - offset} are left")
        yield Message(kind, flags, sequence, port, datagram[offset + 16 : offset + size])
        offset += (size + 3) & ~3
    if offset < end:
        raise MalformedNetlink(f"{end - offset} bytes are left after the last message")


def is_end(datagram: bytes) -> bool:
    """Say whether a datagram ends with the end of a dump, or a refusal: nothing more comes."""
    offset, end, kind = 0, len(datagram), NOOP
    while end - offset >= 16:
        size, kind, _, _, _ = HEADER.unpack_from(datagram, offset)
        offset += max(size + 3 & ~3, 16)
    return kind in (DONE, ERROR)


def carried_out(datagram: bytes, sequence: int) -> bool:
    """Say whether a datagram is one answer alone, that the request with this sequence number was carried out: as most answers are."""
    if len(datagram) < 20:
        return False
    size, kind, _, answered, _ = HEADER.unpack_from(datagram)
    return size == len(datagram) and kind == ERROR and answered == sequence and datagram[16:20] == b"\0\0\0\0"


def attribute_list(data: bytes, offset: int = 0) -> list[tuple[int, bytes]]:
    """The attributes from ``offset`` on, as (type without its flags, value), in order; lists repeat a type.

    Raises:
        MalformedNetlink: an attribute says that it is longer than what holds it, or shorter than its header.
    """
    found = []
    end = len(data)
    while end - offset >= 4:
        size, kind = ATTRIBUTE.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            raise MalformedNetlink(f"an attribute at byte {offset} says {size} bytes where {end - offset} are left")
        found.append((kind & TYPE_MASK, data[offset + 4 : offset + size]))
        offset += (size + 3) & ~3
    return found


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes from ``offset`` on, by type; the last one wins, as in the kernel's own parser."""
    return dict(attribute_list(data, offset))


def chosen(data: bytes, offset: int, kinds: Collection[int]) -> dict[int, bytes]:
    """As ``attributes``, of these types alone, none of which comes twice: what stands behind the last of them is not looked at.

    Raises:
        MalformedNetlink: as ``attribute_list`` does.
    """
    found: dict[int, bytes] = {}
    end, wanted = len(data), len(kinds)
    while end - offset >= 4 and len(found) < wanted:
        size, kind = ATTRIBUTE.unpack_from(data, offset)
        if size < 4 or offset + size > end:
            raise MalformedNetlink(f"an attribute at byte {offset} says {size} bytes where {end - offset} are left")
        kind &= TYPE_MASK
        if kind in kinds:
            found[kind] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def to_string(value: bytes) -> str:
    """A zero-terminated string. Bytes that are no UTF-8 (a kernel name may hold any) are kept as surrogates."""
    return value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def to_int(value: bytes) -> int:
    """An unsigned integer of the host's order, of any width."""
    return int.from_bytes(value, _HOST_ORDER)


def to_be(value: bytes) -> int:
    """An unsigned integer of network order, of any width."""
    return int.from_bytes(value, "big")


_HOST_ORDER: Final = "little" if Struct("=H").pack(1) == b"\1\0" else "big"


def acknowledgement(answer: Message) -> Acknowledgement:
    """Decode an ``ERROR`` message, or a ``DONE`` (which carries a dump's error in the same place).

    The structure is an error number, for an ``ERROR`` then the request (its header only when ``CAPPED``), then attributes
    when ``ACK_TLVS`` is set.
    """
    data = answer.payload
    try:
        number = -_ERROR.unpack_from(data)[0] if len(data) >= 4 or answer.type == ERROR else 0
        if not answer.flags & ACK_TLVS:
            return Acknowledgement(answer.sequence, number)
        offset = 4
        if answer.type == ERROR:
            offset += 16 if answer.flags & CAPPED else (HEADER.unpack_from(data, 4)[0] + 3) & ~3
    except error as cause:
        raise MalformedNetlink(f"an acknowledgement of {len(data)} bytes") from cause
    extra = attributes(data, offset)
    position = extra.get(_EXT_ACK_OFFSET)
    return Acknowledgement(
        answer.sequence,
        number,
        to_string(extra.get(_EXT_ACK_MESSAGE, b"")),
        None if position is None else to_int(position),
    )
