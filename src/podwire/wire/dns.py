"""DNS messages: bytes to values and back.

What belongs here: names, questions, records and whole messages on the wire, for UDP and TCP alike. What must not: what any name
means, sockets, caches.

A name is handled in its wire form (``\\x05users\\x04shop...\\x00``), which compares and cuts faster than text; ``name`` and ``text``
convert. ``lower`` folds case: no length byte of a label (at most 63) is an upper-case letter, so a whole name may be folded at once.
Text has the escapes of zone files: ``\\.`` for a dot within a label, ``\\123`` for a byte that is not printable.

Sources: RFC 1035 (messages, 2.3.1 and 3.1 names, 4.1.4 compression), RFC 2782 (SRV), RFC 3596 (AAAA), RFC 4343 (case), RFC 6891 (EDNS).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

A, NS, CNAME, SOA, PTR, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 16, 28, 33, 41, 255
IN: Final = 1
TYPES: Final = {"A": A, "NS": NS, "CNAME": CNAME, "SOA": SOA, "PTR": PTR, "TXT": TXT, "AAAA": AAAA, "SRV": SRV, "OPT": OPT, "ANY": ANY}

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
BADVERS: Final = 16

QR, AA, TC, RD, RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
HEADER: Final = struct.Struct("!HHHHHH")  # id, flags, questions, answers, authorities, additionals
QUESTION_NAME: Final = b"\xc0\x0c"  # a pointer to the name of the question, which always begins at byte 12
UDP_SIZE: Final = 512  # without EDNS: RFC 1035 2.3.4

_FIXED = struct.Struct("!HHIH")  # type, class, TTL, length of the data
_HH = struct.Struct("!HH")
_SRV = struct.Struct("!HHH")
_SOA_NUMBERS = struct.Struct("!IIIII")


class Malformed(ValueError):
    """A message, or a name, that the protocol does not allow. The text says what is wrong."""


# Names --------------------------------------------------------------------------------------------------------------------


def name(text: str) -> bytes:
    """Give a name's wire form. A final dot is optional. Raises Malformed."""
    labels: list[bytes] = []
    label = bytearray()
    at = 0
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            digits = text[at + 1 : at + 4]
            if digits.isdigit() and len(digits) == 3 and int(digits) < 256:
                label.append(int(digits))
                at += 4
                continue
            at += 1
            if at >= len(text):
                raise Malformed(f"{text!r} ends within an escape")
            label += text[at].encode()
        elif sign == ".":
            if not label and text != ".":
                raise Malformed(f"{text!r} has an empty label")
            labels.append(bytes(label))
            label.clear()
        else:
            label += sign.encode()
        at += 1
    labels.append(bytes(label))
    return from_labels([each for each in labels if each])


def from_labels(labels: list[bytes]) -> bytes:
    """Give the wire form of a list of labels. Raises Malformed."""
    for label in labels:
        if not 0 < len(label) < 64:
            raise Malformed(f"the label {label.decode(errors='replace')!r} has {len(label)} bytes, and 1 to 63 are allowed")
    wire = b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"
    if len(wire) > 255:
        raise Malformed(f"a name of {len(wire)} bytes; at most 255 are allowed")
    return wire


def labels(wire: bytes) -> list[bytes]:
    """Cut an uncompressed name into its labels. Raises Malformed."""
    found: list[bytes] = []
    at = 0
    while True:
        try:
            length = wire[at]
        except IndexError:
            raise Malformed("a name without an end") from None
        if length == 0:
            return found
        found.append(wire[at + 1 : at + 1 + length])
        at += 1 + length


def text(wire: bytes) -> str:
    """Print an uncompressed name, with its final dot. Raises Malformed."""
    return "".join(_label_text(label) + "." for label in labels(wire)) or "."


def _label_text(label: bytes) -> str:
    plain = []
    for byte in label:
        if byte in b".\\":
            plain.append("\\" + chr(byte))
        else:
            plain.append(chr(byte) if 33 <= byte < 127 else f"\\{byte:03d}")
    return "".join(plain)


def lower(wire: bytes) -> bytes:
    """Fold the case of an uncompressed name."""
    return wire.lower()


def cuts(wire: bytes) -> list[int]:
    """Give where each label of an uncompressed name begins, the root's last. Raises Malformed if the bytes are not just such a name."""
    found, at, size = [0], 0, len(wire)
    while at < size:
        length = wire[at]
        if length == 0 and at == size - 1 and size < 256:
            return found
        if length == 0 or length > 63:
            break
        at += 1 + length
        found.append(at)
    raise Malformed("not a name")


def parents(wire: bytes) -> list[bytes]:
    """Give the names above a name, nearest first, without the root."""
    found: list[bytes] = []
    at = 1 + wire[0]
    while at < len(wire) - 1:
        found.append(wire[at:])
        at += 1 + wire[at]
    return found


def _read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """Read a name, following pointers. Returns it uncompressed, and where what follows it begins."""
    pieces: list[bytes] = []
    size, end, lowest = 0, -1, at
    while True:
        try:
            length = data[at]
            if length >= 0xC0:
                target = (length & 0x3F) << 8 | data[at + 1]
                end = at + 2 if end < 0 else end
                if target >= lowest:  # a pointer leads back, so no name is endless
                    raise Malformed("a pointer that does not lead back")
                at = lowest = target
                continue
        except IndexError:
            raise Malformed("a name that goes on beyond the message") from None
        if length >= 0x40:
            raise Malformed(f"a label of the unknown kind {length >> 6}")
        if at + 1 + length > len(data):
            raise Malformed("a name that goes on beyond the message")
        pieces.append(data[at : at + 1 + length])
        size += 1 + length
        if size > 255:
            raise Malformed("a name of more than 255 bytes")
        at += 1 + length
        if length == 0:
            return b"".join(pieces), (at if end < 0 else end)


# Values -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question:
    """``name`` is in wire form, in the case in which it was asked."""

    name: bytes
    type: int
    klass: int = IN


@dataclass(frozen=True, slots=True)
class Record:
    """``data`` is uncompressed. The EDNS record is not among records: a message has it as ``edns_size``."""

    name: bytes
    type: int
    ttl: int
    data: bytes
    klass: int = IN

    def encode(self, owner: bytes = b"") -> bytes:
        """Give the record's bytes; ``owner`` takes the place of the name, as a pointer."""
        return (owner or self.name) + _FIXED.pack(self.type, self.klass, self.ttl, len(self.data)) + self.data


@dataclass(frozen=True, slots=True)
class Message:
    """``flags`` are those of the header without the response code, which is ``rcode``. ``edns_size`` is None without EDNS."""

    id: int = 0
    flags: int = 0
    rcode: int = NOERROR
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()
    edns_size: int | None = None
    edns_version: int = 0

    def encode(self) -> bytes:
        """Give the message's bytes, without compression."""
        sections = self.answers, self.authorities, self.additionals
        edns = b"" if self.edns_size is None else opt(self.edns_size, self.rcode >> 4)
        counts = len(self.questions), len(self.answers), len(self.authorities), len(self.additionals) + bool(edns)
        head = HEADER.pack(self.id, self.flags | self.rcode & 15, *counts)
        asked = b"".join(question.name + _HH.pack(question.type, question.klass) for question in self.questions)
        return head + asked + b"".join(record.encode() for section in sections for record in section) + edns


def opt(size: int, extended_rcode: int = 0) -> bytes:
    """Give an EDNS record: ``size`` is what the sender takes over UDP."""
    return b"\0" + _FIXED.pack(OPT, size, extended_rcode << 24, 0)


def decode(data: bytes) -> Message:
    """Read a whole message. Raises Malformed."""
    if len(data) < HEADER.size:
        raise Malformed(f"a message of {len(data)} bytes, shorter than its header")
    number, flags, *counts = HEADER.unpack_from(data)
    at = HEADER.size
    questions = []
    for _ in range(counts[0]):
        asked, at = _read_name(data, at)
        questions.append(Question(asked, *_unpack(_HH, data, at)))
        at += 4
    reading = _Sections(data, at)
    answers, authorities, additionals = (tuple(reading.records(count)) for count in counts[1:])
    return Message(
        number,
        flags & 0xFFF0,
        flags & 15 | reading.extended_rcode << 4,
        tuple(questions),
        answers,
        authorities,
        additionals,
        edns_size=reading.edns_size,
        edns_version=reading.edns_version,
    )


@dataclass(slots=True)
class _Sections:
    data: bytes
    at: int
    edns_size: int | None = None
    edns_version: int = 0
    extended_rcode: int = 0

    def records(self, count: int) -> list[Record]:
        found = []
        for _ in range(count):
            owner, at = _read_name(self.data, self.at)
            kind, klass, ttl, length = _unpack(_FIXED, self.data, at)
            at += _FIXED.size
            self.at = at + length
            if self.at > len(self.data):
                raise Malformed("a record that goes on beyond the message")
            if kind == OPT:
                if self.edns_size is not None or owner != b"\0":
                    raise Malformed("more than one EDNS record, or one with a name")
                self.edns_size, self.extended_rcode, self.edns_version = klass, ttl >> 24, ttl >> 16 & 255
                continue
            found.append(Record(owner, kind, ttl, _uncompressed(self.data, kind, at, length), klass))
        return found


def _uncompressed(data: bytes, kind: int, at: int, length: int) -> bytes:
    """Give a record's data with the names in it written out."""
    end = at + length
    if kind in (CNAME, NS, PTR):
        target, after = _read_name(data, at)
    elif kind == SRV:
        target, after = _read_name(data, at + _SRV.size)
        target = data[at : at + _SRV.size] + target
    elif kind == SOA:
        primary, after = _read_name(data, at)
        mailbox, after = _read_name(data, after)
        target = primary + mailbox + data[after : after + _SOA_NUMBERS.size]
        after += _SOA_NUMBERS.size
    else:
        return data[at:end]
    if after != end:
        raise Malformed(f"the data of a record of type {kind} is not as long as it says")
    return target


def _unpack(form: struct.Struct, data: bytes, at: int) -> tuple[int, ...]:
    try:
        return form.unpack_from(data, at)
    except struct.error:
        raise Malformed("a message that ends within a record") from None


# Data of records ------------------------------------------------------------------------------------------------------------


def srv(priority: int, weight: int, port: int, target: bytes) -> bytes:
    """Give the data of an SRV record; ``target`` in wire form."""
    return _SRV.pack(priority, weight, port) + target


def read_srv(data: bytes) -> tuple[int, int, int, bytes]:
    """Read the data of an SRV record: priority, weight, port, target. Raises Malformed."""
    priority, weight, port = _unpack(_SRV, data, 0)
    return priority, weight, port, data[_SRV.size :]


def txt(*strings: bytes) -> bytes:
    """Give the data of a TXT record. Raises Malformed for a string of more than 255 bytes."""
    if any(len(each) > 255 for each in strings):
        raise Malformed("a string of more than 255 bytes")
    return b"".join(bytes((len(each),)) + each for each in strings)


def soa(primary: bytes, mailbox: bytes, serial: int, refresh: int, retry: int, expire: int, minimum: int) -> bytes:
    """Give the data of an SOA record; names in wire form, times in seconds."""
    return primary + mailbox + _SOA_NUMBERS.pack(serial & 0xFFFFFFFF, refresh, retry, expire, minimum)
