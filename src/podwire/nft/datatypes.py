"""The data types of nftables: what a field of a key, a value or a register holds.

A value is kept as the bytes that the kernel keeps: numbers of packets in network order, numbers of the host (marks, indexes,
states) in host order, every field of a concatenation padded to a multiple of four bytes (a register). Here lives what is known
of one type: its name in nft's language, its number (with which the nft program finds the type again when it lists a set), its
length, its byte order, and its text.

What does not belong here: concatenations, sets, rules.

Source: nft(8), DATA TYPES; the numbers and symbols are those of nftables' src/datatype.c.
"""

from __future__ import annotations

import functools
import ipaddress
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

HOST = sys.byteorder
MARK = struct.Struct("=I")  # a mark, as the kernel holds it


class Unreadable(ValueError):
    """A text that is not a value of the type, or not nft language that this package knows."""


@dataclass(frozen=True, slots=True)
class DataType:
    """One type. ``size`` in bytes; ``number`` as in nft's user data; ``flags`` says that values are sets of bits, listed with commas."""

    name: str
    number: int
    size: int
    host_order: bool = False
    base: int = 10
    flags: bool = False
    symbols: Mapping[str, int] = field(default_factory=dict, hash=False, compare=False)
    kind: str = "number"

    @property
    def padded(self) -> int:
        """The length in registers, in bytes."""
        return (self.size + 3) & ~3

    def to_int(self, data: bytes) -> int:
        """Read the number in the (unpadded) bytes of a value."""
        return int.from_bytes(data[: self.size], "little" if self.host_order and HOST == "little" else "big")

    def from_int(self, number: int) -> bytes:
        """Give the (unpadded) bytes of a number. Raises Unreadable when it does not fit."""
        try:
            return number.to_bytes(self.size, "little" if self.host_order and HOST == "little" else "big")
        except OverflowError:
            raise Unreadable(f"{number} does not fit into {self.name} ({self.size} bytes)") from None

    def pack(self, value: object) -> bytes:
        """Give the (unpadded) bytes of a plain Python value: int, str in nft's spelling, an address, or bytes as they are."""
        if isinstance(value, bytes):
            if len(value) != self.size:
                raise Unreadable(f"{value!r} is not {self.size} bytes long, as {self.name} is")
            return value
        if isinstance(value, int):
            return self.from_int(value)
        if isinstance(value, ipaddress.IPv4Address | ipaddress.IPv6Address):
            return self.pack(value.packed)
        return self.parse(str(value))

    def parse(self, text: str) -> bytes:
        """Read one value in nft's spelling. Raises Unreadable."""
        if self.kind in ("ipv4", "ipv6"):
            try:
                return (ipaddress.IPv4Address(text) if self.kind == "ipv4" else ipaddress.IPv6Address(text)).packed
            except ValueError as error:
                raise Unreadable(str(error)) from None
        if self.kind == "name":
            data = text.strip('"').encode()
            if data.endswith(b"*"):
                return data[:-1]  # the beginning of a name: only what is there is compared
            if len(data) >= self.size:
                raise Unreadable(f"{text} is longer than {self.size - 1} bytes")
            return data.ljust(self.size, b"\0")
        if self.flags and "," in text:
            return self.from_int(functools.reduce(int.__or__, (self.to_int(self.parse(part.strip())) for part in text.split(","))))
        if text in self.symbols:
            return self.from_int(self.symbols[text])
        try:
            return self.from_int(int(text, 0))
        except ValueError:
            raise Unreadable(f"{text} is not a value of the type {self.name}") from None

    def format(self, data: bytes) -> str:
        """Print a value as the nft program prints it (without -n)."""
        if self.kind == "ipv4":
            return f"{data[0]}.{data[1]}.{data[2]}.{data[3]}"
        if self.kind == "ipv6":
            return str(ipaddress.IPv6Address(data[:16]))
        if self.kind == "name":
            return '"' + data.rstrip(b"\0").decode() + ("*" if len(data) < self.size else "") + '"'
        number = self.to_int(data)
        for symbol, value in self.symbols.items():
            if value == number:
                return symbol
        if self.flags:
            parts = [symbol for symbol, value in self.symbols.items() if value and number & value == value]
            rest = number & ~functools.reduce(int.__or__, (self.symbols[part] for part in parts), 0)
            return ",".join(parts + ([hex(rest)] if rest or not parts else []))
        return f"0x{number:0{2 * self.size}x}" if self.base == 16 else str(number)


PROTOCOLS = {
    "tcp": 6, "udp": 17, "udplite": 136, "esp": 50, "ah": 51, "icmp": 1, "icmpv6": 58, "comp": 108, "dccp": 33, "sctp": 132,
    "ipv6-icmp": 58,
}  # fmt: skip
_ICMP = {
    "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8, "router-advertisement": 9,
    "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12, "timestamp-request": 13, "timestamp-reply": 14,
    "info-request": 15, "info-reply": 16, "address-mask-request": 17, "address-mask-reply": 18,
}  # fmt: skip
_ICMPV6 = {
    "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4, "echo-request": 128, "echo-reply": 129,
    "mld-listener-query": 130, "mld-listener-report": 131, "mld-listener-done": 132, "nd-router-solicit": 133, "nd-router-advert": 134,
    "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138,
}  # fmt: skip
_ICMP_CODE = {
    "net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3, "frag-needed": 4,
    "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13,
}  # fmt: skip
_ICMPV6_CODE = {"no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4, "policy-fail": 5, "reject-route": 6}
_ICMPX_CODE = {"no-route": 0, "port-unreachable": 1, "host-unreachable": 2, "admin-prohibited": 3}
_CT_STATE = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_CT_STATUS = {"expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32, "dying": 512}
_FIB_TYPE = {
    "unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6, "unreachable": 7, "prohibit": 8,
}  # fmt: skip
_TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128}

_ALL = (
    DataType("verdict", 1, 16, host_order=True, kind="verdict"),
    DataType("nf_proto", 2, 1, symbols={"ipv4": 2, "ipv6": 10}),
    DataType("integer", 4, 4),
    DataType("string", 5, 16, host_order=True, kind="name"),
    DataType("ipv4_addr", 7, 4, kind="ipv4"),
    DataType("ipv6_addr", 8, 16, kind="ipv6"),
    DataType("inet_proto", 12, 1, symbols=PROTOCOLS),
    DataType("inet_service", 13, 2),
    DataType("icmp_type", 14, 1, symbols=_ICMP),
    DataType("tcp_flag", 15, 1, base=16, flags=True, symbols=_TCP_FLAGS),
    DataType("time", 18, 8, host_order=True),
    DataType("mark", 19, 4, host_order=True, base=16),
    DataType("iface_index", 20, 4, host_order=True),
    DataType("iface_type", 21, 2, host_order=True),
    DataType("uid", 24, 4, host_order=True),
    DataType("gid", 25, 4, host_order=True),
    DataType("ct_state", 26, 4, host_order=True, base=16, flags=True, symbols=_CT_STATE),
    DataType("ct_dir", 27, 1, symbols={"original": 0, "reply": 1}),
    DataType("ct_status", 28, 4, host_order=True, base=16, flags=True, symbols=_CT_STATUS),
    DataType("icmpv6_type", 29, 1, symbols=_ICMPV6),
    DataType("icmp_code", 32, 1, symbols=_ICMP_CODE),
    DataType("icmpv6_code", 33, 1, symbols=_ICMPV6_CODE),
    DataType("icmpx_code", 34, 1, symbols=_ICMPX_CODE),
    DataType("fib_addrtype", 38, 4, host_order=True, symbols=_FIB_TYPE),
    DataType("boolean", 39, 1, symbols={"exists": 1, "missing": 0}),
    DataType("ifname", 41, 16, host_order=True, kind="name"),
)
BY_NAME: Mapping[str, DataType] = {kind.name: kind for kind in _ALL}
BY_NUMBER: Mapping[int, DataType] = {kind.number: kind for kind in _ALL}


def datatype(name: str) -> DataType:
    """Find a type by its name in nft's language. Raises Unreadable."""
    try:
        return BY_NAME[name]
    except KeyError:
        raise Unreadable(f"unknown data type {name}") from None


def integer(size: int, *, host_order: bool = False) -> DataType:
    """Give the unnamed number type of a length, as ``numgen``, ``jhash`` and lengths have it."""
    return DataType("integer", 4, size, host_order=host_order)


def pack(types: tuple[DataType, ...], values: tuple[object, ...]) -> bytes:
    """Give the bytes of a concatenation: each field padded with zeros to whole registers, except in a key of one field.

    Raises Unreadable when the number of values differs or one does not fit.
    """
    if len(types) != len(values):
        raise Unreadable(f"{len(values)} values for {len(types)} fields ({' . '.join(kind.name for kind in types)})")
    if len(types) == 1:
        return types[0].pack(values[0])
    return b"".join(kind.pack(value).ljust(kind.padded, b"\0") for kind, value in zip(types, values, strict=True))


def unpack(types: tuple[DataType, ...], data: bytes) -> tuple[bytes, ...]:
    """Cut the bytes of a concatenation into its fields, without their padding."""
    fields, at = [], 0
    for kind in types:
        fields.append(data[at : at + kind.size])
        at += kind.padded
    return tuple(fields)


def length(types: tuple[DataType, ...]) -> int:
    """The length in bytes of a key or value of these types, as the kernel is told it."""
    return types[0].size if len(types) == 1 else sum(kind.padded for kind in types)
