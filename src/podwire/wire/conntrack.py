"""Connection tracking's netlink: flows to bytes and back.

Here: the entries of the kernel's connection table as frozen values, the question for those of one mark, protocol or destination, and the
order to forget one. Not here: which flows ought to go, and no socket.

An entry has two tuples. ``original`` is what the first sender wrote; ``reply`` is what answers look like when they arrive, before they are
translated back, so the reply's source is the endpoint that really answers. A deletion names the original tuple and the entry's id: a newer
flow between the same two ends is another entry, and stays. All integers are in network order.

Sources: include/uapi/linux/netfilter/nfnetlink_conntrack.h and nf_conntrack_common.h of the Linux kernel; filters of a dump by tuple since
Linux 5.8 (older kernels pass over them, so who asks must look at what comes).
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from podwire.wire import netlink, nfnetlink
from podwire.wire.netlink import be16, be32, nested

# Messages: the low byte.
NEW, GET, DELETE, GET_CTRZERO, GET_STATS_CPU, GET_STATS = range(6)

TCP: Final = 6
UDP: Final = 17
SCTP: Final = 132
PROTOCOL_NAMES: Final = {1: "icmp", TCP: "tcp", UDP: "udp", 58: "icmpv6", SCTP: "sctp"}
_WITH_PORTS: Final = frozenset({TCP, UDP, SCTP, 33, 136})


class CTA:
    """Attribute numbers, named as in the kernel's header."""

    TUPLE_ORIG, TUPLE_REPLY, STATUS, TIMEOUT, MARK, ID, ZONE, MARK_MASK, FILTER = 1, 2, 3, 7, 8, 12, 18, 21, 25
    TUPLE_IP, TUPLE_PROTO, TUPLE_ZONE = 1, 2, 3
    IP_V4_SRC, IP_V4_DST, IP_V6_SRC, IP_V6_DST = 1, 2, 3, 4
    PROTO_NUM, PROTO_SRC_PORT, PROTO_DST_PORT = 1, 2, 3
    FILTER_ORIG_FLAGS = 1
    STATS_GLOBAL_ENTRIES = 1


class Status:
    """Bits of a flow's status."""

    SEEN_REPLY, ASSURED, CONFIRMED, SRC_NAT, DST_NAT = 0x2, 0x4, 0x8, 0x10, 0x20


# Which parts of the tuple a filter looks at.
_FILTER_DESTINATION, _FILTER_PROTOCOL, _FILTER_DESTINATION_PORT = 0x2, 0x8, 0x20


class Tuple(NamedTuple):
    """One direction of a flow. Addresses are packed (4 or 16 bytes); ports are 0 for protocols without."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int = 0
    destination_port: int = 0

    def __str__(self) -> str:
        name = PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        return f"{name} {_end(self.source, self.source_port)} > {_end(self.destination, self.destination_port)}"


class Flow(NamedTuple):
    """One entry. ``id`` and ``timeout_s`` are the kernel's; ``zone`` is 0 unless rules made others."""

    original: Tuple
    reply: Tuple
    mark: int = 0
    status: int = 0
    timeout_s: int = 0
    id: int = 0
    zone: int = 0

    @property
    def translated(self) -> bool:
        """Whether the destination was rewritten."""
        return bool(self.status & Status.DST_NAT)

    def __str__(self) -> str:
        text = f"{self.original}, replies {self.reply}"
        return text + (f", mark {self.mark:#x}" if self.mark else "")


class Filter(NamedTuple):
    """Which flows a dump shows: those to which all that is given applies. ``mark`` is (value, mask)."""

    mark: tuple[int, int] | None = None
    protocol: int = 0
    destination: bytes = b""
    destination_port: int = 0


EVERYTHING: Final = Filter()


def _end(address: bytes, port: int) -> str:
    text = str(ipaddress.ip_address(address))
    if not port:
        return text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


# ---------------------------------------------------------------------------------------------------------- to bytes


def get(sequence: int, family: str, wanted: Filter = EVERYTHING) -> bytes:
    """Ask for flows of a family (``ip``, ``ip6``). The kernel leaves out what the filter excludes, where it is new enough to know it."""
    flags = netlink.REQUEST | netlink.DUMP
    return nfnetlink.message(nfnetlink.CTNETLINK, GET, flags, sequence, nfnetlink.FAMILIES[family], *_filter(wanted))


def delete(sequence: int, flow: Flow, *, acknowledge: bool) -> bytes:
    """Forget one flow. Without ``acknowledge`` the kernel speaks only if it fails (ENOENT: it is gone already)."""
    flags = netlink.REQUEST | (netlink.ACK if acknowledge else 0)
    parts = [_tuple(CTA.TUPLE_ORIG, flow.original), be32(CTA.ID, flow.id)]
    if flow.zone:
        parts.append(be16(CTA.ZONE, flow.zone))
    family = nfnetlink.FAMILIES["ip" if len(flow.original.source) == 4 else "ip6"]
    return nfnetlink.message(nfnetlink.CTNETLINK, DELETE, flags, sequence, family, *parts)


def get_count(sequence: int) -> bytes:
    """Ask how many flows there are."""
    return nfnetlink.message(nfnetlink.CTNETLINK, GET_STATS, netlink.REQUEST, sequence, 0)


def _filter(wanted: Filter) -> list[bytes]:
    parts: list[bytes] = []
    if wanted.mark is not None:
        parts += [be32(CTA.MARK, wanted.mark[0]), be32(CTA.MARK_MASK, wanted.mark[1])]
    flags, address, protocol = 0, b"", b""
    if wanted.destination:
        flags |= _FILTER_DESTINATION
        address = netlink.attribute(CTA.IP_V4_DST if len(wanted.destination) == 4 else CTA.IP_V6_DST, wanted.destination)
    if wanted.protocol:
        flags |= _FILTER_PROTOCOL
        protocol = netlink.u8(CTA.PROTO_NUM, wanted.protocol)
        if wanted.destination_port:
            flags |= _FILTER_DESTINATION_PORT
            protocol += be16(CTA.PROTO_DST_PORT, wanted.destination_port)
    if flags:
        inside = [nested(kind, content) for kind, content in ((CTA.TUPLE_IP, address), (CTA.TUPLE_PROTO, protocol)) if content]
        parts += [nested(CTA.TUPLE_ORIG, *inside), nested(CTA.FILTER, netlink.u32(CTA.FILTER_ORIG_FLAGS, flags))]
    return parts


def _tuple(kind: int, tuple_: Tuple) -> bytes:
    source, destination = (CTA.IP_V4_SRC, CTA.IP_V4_DST) if len(tuple_.source) == 4 else (CTA.IP_V6_SRC, CTA.IP_V6_DST)
    addresses = nested(CTA.TUPLE_IP, netlink.attribute(source, tuple_.source), netlink.attribute(destination, tuple_.destination))
    protocol = [netlink.u8(CTA.PROTO_NUM, tuple_.protocol)]
    if tuple_.protocol in _WITH_PORTS:
        protocol += [be16(CTA.PROTO_SRC_PORT, tuple_.source_port), be16(CTA.PROTO_DST_PORT, tuple_.destination_port)]
    return nested(kind, addresses, nested(CTA.TUPLE_PROTO, *protocol))


# -------------------------------------------------------------------------------------------------------- from bytes


def flow(payload: bytes) -> Flow:
    """Decode one entry of a dump.

    Raises:
        MalformedNetlink: lengths do not fit, or a tuple is missing.
    """
    found = netlink.attributes(payload, 4)
    try:
        original, reply = found[CTA.TUPLE_ORIG], found[CTA.TUPLE_REPLY]
    except KeyError:
        raise netlink.MalformedNetlink("an entry of the connection table without its tuples") from None
    number = netlink.to_be
    return Flow(
        _read_tuple(original),
        _read_tuple(reply),
        number(found.get(CTA.MARK, b"")),
        number(found.get(CTA.STATUS, b"")),
        number(found.get(CTA.TIMEOUT, b"")),
        number(found.get(CTA.ID, b"")),
        number(found.get(CTA.ZONE, b"")),
    )


def _read_tuple(data: bytes) -> Tuple:
    parts = netlink.attributes(data)
    addresses = netlink.attributes(parts.get(CTA.TUPLE_IP, b""))
    protocol = netlink.attributes(parts.get(CTA.TUPLE_PROTO, b""))
    source = addresses.get(CTA.IP_V4_SRC) or addresses.get(CTA.IP_V6_SRC)
    destination = addresses.get(CTA.IP_V4_DST) or addresses.get(CTA.IP_V6_DST)
    if source is None or destination is None:
        raise netlink.MalformedNetlink("a flow without addresses")
    number = netlink.to_be
    return Tuple(
        source,
        destination,
        number(protocol.get(CTA.PROTO_NUM, b"")),
        number(protocol.get(CTA.PROTO_SRC_PORT, b"")),
        number(protocol.get(CTA.PROTO_DST_PORT, b"")),
    )


def count(payload: bytes) -> int:
    """Decode the answer to ``get_count``."""
    return netlink.to_be(netlink.attributes(payload, 4).get(CTA.STATS_GLOBAL_ENTRIES, b""))
