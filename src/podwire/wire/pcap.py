"""The pcap file format: what `podwire capture` writes and every packet tool reads.

Little-endian, nanosecond timestamps, link type LINUX_SLL2: packets of several interfaces in one file, each with the interface's
index, the direction and the network-layer packet; no real link layer, which in the lab carries nothing anyway.

Sources: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html, https://www.tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NANOSECOND_MAGIC = 0xA1B23C4D
LINUX_SLL2 = 276
SNAPSHOT = 262_144

_FILE = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_SLL2 = struct.Struct(">HHIHBB8s")


@dataclass(frozen=True)
class Packet:
    """One packet as an interface saw it.

    ``time_ns`` since the epoch; ``protocol`` is the Ethernet type; ``direction`` 0 to us, 1 broadcast, 2 multicast, 3 to
    somebody else, 4 sent by us; ``length`` is that of the whole packet where ``payload`` holds only its beginning.
    """

    time_ns: int
    interface: int
    protocol: int
    direction: int
    payload: bytes
    length: int
    hardware: int = 1
    source: bytes = b""


def header() -> bytes:
    """Give the head of a file."""
    return _FILE.pack(NANOSECOND_MAGIC, 2, 4, 0, 0, SNAPSHOT, LINUX_SLL2)


def record(packet: Packet) -> bytes:
    """Give one packet as the file holds it."""
    cooked = _SLL2.pack(
        packet.protocol, 0, packet.interface, packet.hardware, packet.direction, len(packet.source), packet.source[:8].ljust(8, b"\0")
    )
    body = cooked + packet.payload
    seconds, nanoseconds = divmod(packet.time_ns, 1_000_000_000)
    return _RECORD.pack(seconds, nanoseconds, len(body), _SLL2.size + packet.length) + body


def read(content: bytes) -> Iterator[Packet]:
    """Read a file that this module wrote. Raises ValueError for any other."""
    if len(content) < _FILE.size or _FILE.unpack_from(content) != _FILE.unpack(header()):
        raise ValueError("no pcap file of link type LINUX_SLL2 with nanoseconds")
    position = _FILE.size
    while position + _RECORD.size <= len(content):
        seconds, nanoseconds, captured, length = _RECORD.unpack_from(content, position)
        position += _RECORD.size
        protocol, _, interface, hardware, direction, size, source = _SLL2.unpack_from(content, position)
        payload = content[position + _SLL2.size : position + captured]
        position += captured
        yield Packet(
            seconds * 1_000_000_000 + nanoseconds, interface, protocol, direction, payload, length - _SLL2.size, hardware, source[:size]
        )


# One line a packet, for people ---------------------------------------------------------------------------------------------

_PROTOCOLS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP6", 132: "SCTP"}
_FLAGS = ((0x02, "S"), (0x01, "F"), (0x04, "R"), (0x08, "P"), (0x10, "."))


def line(packet: Packet) -> str:
    """Say in one line who sent what to whom: ``10.4.0.2.41234 > 10.4.1.3.8080: TCP [S.] length 0``."""
    payload = packet.payload
    if packet.protocol == 0x0800 and len(payload) >= 20:
        start, protocol = (payload[0] & 15) * 4, payload[9]
        source, destination = (".".join(map(str, payload[at : at + 4])) for at in (12, 16))
        end = int.from_bytes(payload[2:4], "big")
        if int.from_bytes(payload[6:8], "big") & 0x1FFF:
            return f"{source} > {destination}: {_PROTOCOLS.get(protocol, protocol)} fragment, length {end - start}"
    elif packet.protocol == 0x86DD and len(payload) >= 40:
        start, protocol = 40, payload[6]
        source, destination = (_ipv6(payload[at : at + 16]) for at in (8, 24))
        end = 40 + int.from_bytes(payload[4:6], "big")
    else:
        return f"ethertype 0x{packet.protocol:04x}, length {packet.length}"
    if protocol not in {6, 17} or len(payload) < start + 8:
        kind = f" type {payload[start]} code {payload[start + 1]}" if protocol in {1, 58} and len(payload) >= start + 2 else ""
        return f"{source} > {destination}: {_PROTOCOLS.get(protocol, f'protocol {protocol}')}{kind}, length {end - start}"
    ports = [int.from_bytes(payload[at : at + 2], "big") for at in (start, start + 2)]
    ends = f"{source}.{ports[0]} > {destination}.{ports[1]}"
    if protocol == 17 or len(payload) < start + 14:
        return f"{ends}: UDP, length {max(0, end - start - 8)}"
    flags = "".join(letter for bit, letter in _FLAGS if payload[start + 13] & bit) or "none"
    return f"{ends}: TCP [{flags}], length {max(0, end - start - (payload[start + 12] >> 4) * 4)}"


def _ipv6(packed: bytes) -> str:
    # Written out here, not through ``ipaddress``: this runs for every packet shown.
    words = [int.from_bytes(packed[at : at + 2], "big") for at in range(0, 16, 2)]
    best_start, best_length, start = -1, 1, 0
    while start < 8:
        stop = start
        while stop < 8 and words[stop] == 0:
            stop += 1
        if stop - start > best_length:
            best_start, best_length = start, stop - start
        start = stop + 1
    if best_start < 0:
        return ":".join(f"{word:x}" for word in words)
    head = ":".join(f"{word:x}" for word in words[:best_start])
    tail = ":".join(f"{word:x}" for word in words[best_start + best_length :])
    return f"{head}::{tail}"
