"""The fields that expressions read: where each lies, what type it is, and by which number kernel and nft program know it.

Four tables, one for each place where a value can come from: the packet, what is known beside it, connection tracking, routing. To
teach this package a field is to add a row. What belongs elsewhere: how expressions are written (language.py) or sent (assembly.py).

Sources: nft(8), PAYLOAD EXPRESSIONS, META EXPRESSIONS, CONNTRACK EXPRESSIONS, FIB EXPRESSIONS; RFC 791, 8200, 792, 4443, 9293, 768;
enums nft_meta_keys, nft_ct_keys, nft_fib_result of linux/netfilter/nf_tables.h; enums proto_desc_id and *hdr_fields of nftables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from podwire.nft import datatypes
from podwire.nft.datatypes import DataType, Unreadable
from podwire.nft.model import (
    Concatenation,
    Constant,
    Ct,
    Expression,
    Fib,
    Hash,
    Lookup,
    Masked,
    Meta,
    Numgen,
    Payload,
    Prefix,
    Range,
    Reference,
    Set,
)

NETWORK, TRANSPORT = 1, 2


@dataclass(frozen=True, slots=True)
class Protocol:
    """A header. ``number`` is nft's for user data; ``dependency`` the type and value that must hold before it is read."""

    name: str
    base: int
    number: int
    nfproto: int | None = None
    l4proto: int | None = None


@dataclass(frozen=True, slots=True)
class PayloadField:
    """A field of a header: ``offset`` in bytes, its type, and its number among the header's fields in user data."""

    protocol: str
    name: str
    offset: int
    type: DataType
    number: int


IPV4, IPV6 = 2, 10
PROTOCOLS: Final[Mapping[str, Protocol]] = {
    p.name: p
    for p in (
        Protocol("ip", NETWORK, 12, nfproto=IPV4),
        Protocol("ip6", NETWORK, 13, nfproto=IPV6),
        Protocol("icmp", TRANSPORT, 4, nfproto=IPV4, l4proto=1),
        Protocol("icmpv6", TRANSPORT, 14, nfproto=IPV6, l4proto=58),
        Protocol("tcp", TRANSPORT, 8, l4proto=6),
        Protocol("udp", TRANSPORT, 6, l4proto=17),
        Protocol("sctp", TRANSPORT, 10, l4proto=132),
        Protocol("th", TRANSPORT, 11),
    )
}
PROTOCOL_BY_NUMBER: Final = {p.number: p for p in PROTOCOLS.values()}
PROTOCOL_BY_L4: Final = {p.l4proto: p for p in PROTOCOLS.values() if p.l4proto is not None}

_T = datatypes.datatype
_FIELDS: Final = (
    PayloadField("ip", "length", 2, datatypes.integer(2), 5),
    PayloadField("ip", "id", 4, datatypes.integer(2), 6),
    PayloadField("ip", "ttl", 8, datatypes.integer(1), 8),
    PayloadField("ip", "protocol", 9, _T("inet_proto"), 9),
    PayloadField("ip", "saddr", 12, _T("ipv4_addr"), 11),
    PayloadField("ip", "daddr", 16, _T("ipv4_addr"), 12),
    PayloadField("ip6", "length", 4, datatypes.integer(2), 5),
    PayloadField("ip6", "nexthdr", 6, _T("inet_proto"), 6),
    PayloadField("ip6", "hoplimit", 7, datatypes.integer(1), 7),
    PayloadField("ip6", "saddr", 8, _T("ipv6_addr"), 8),
    PayloadField("ip6", "daddr", 24, _T("ipv6_addr"), 9),
    PayloadField("icmp", "type", 0, _T("icmp_type"), 1),
    PayloadField("icmp", "code", 1, _T("icmp_code"), 2),
    PayloadField("icmpv6", "type", 0, _T("icmpv6_type"), 1),
    PayloadField("icmpv6", "code", 1, _T("icmpv6_code"), 2),
    PayloadField("tcp", "sport", 0, _T("inet_service"), 1),
    PayloadField("tcp", "dport", 2, _T("inet_service"), 2),
    PayloadField("tcp", "flags", 13, _T("tcp_flag"), 7),
    PayloadField("udp", "sport", 0, _T("inet_service"), 1),
    PayloadField("udp", "dport", 2, _T("inet_service"), 2),
    PayloadField("udp", "length", 4, datatypes.integer(2), 3),
    PayloadField("sctp", "sport", 0, _T("inet_service"), 1),
    PayloadField("sctp", "dport", 2, _T("inet_service"), 2),
    PayloadField("th", "sport", 0, _T("inet_service"), 1),
    PayloadField("th", "dport", 2, _T("inet_service"), 2),
)
PAYLOAD: Final[Mapping[tuple[str, str], PayloadField]] = {(f.protocol, f.name): f for f in _FIELDS}
PAYLOAD_AT: Final = {(f.protocol, f.offset): f for f in _FIELDS}
PAYLOAD_BY_NUMBER: Final = {(f.protocol, f.number): f for f in _FIELDS}

_INDEX, _NAME, _HOST32 = _T("iface_index"), _T("ifname"), datatypes.integer(4, host_order=True)
META: Final[Mapping[str, tuple[int, DataType]]] = {
    "length": (0, _HOST32),
    "priority": (2, _HOST32),
    "mark": (3, _T("mark")),
    "iif": (4, _INDEX),
    "oif": (5, _INDEX),
    "iifname": (6, _NAME),
    "oifname": (7, _NAME),
    "skuid": (10, _T("uid")),
    "skgid": (11, _T("gid")),
    "nfproto": (15, _T("nf_proto")),
    "l4proto": (16, _T("inet_proto")),
    "cgroup": (23, _HOST32),
}
META_BY_NUMBER: Final = {number: name for name, (number, _) in META.items()}
BARE_META: Final = frozenset({"iif", "oif", "iifname", "oifname"})

_ADDRESS4, _ADDRESS6, _PORT = _T("ipv4_addr"), _T("ipv6_addr"), _T("inet_service")
CT: Final[Mapping[str, tuple[int, DataType]]] = {
    "state": (0, _T("ct_state")),
    "direction": (1, _T("ct_dir")),
    "status": (2, _T("ct_status")),
    "mark": (3, _T("mark")),
    "protocol": (10, _T("inet_proto")),
    "proto-src": (11, _PORT),
    "proto-dst": (12, _PORT),
    "zone": (17, datatypes.integer(2, host_order=True)),
    "ip saddr": (19, _ADDRESS4),
    "ip daddr": (20, _ADDRESS4),
    "ip6 saddr": (21, _ADDRESS6),
    "ip6 daddr": (22, _ADDRESS6),
    "id": (23, datatypes.integer(4)),
}
CT_BY_NUMBER: Final = {number: name for name, (number, _) in CT.items()}
CT_DIRECTIONS: Final = {"original": 0, "reply": 1}
CT_DIRECTED: Final = frozenset({"protocol", "proto-src", "proto-dst", "ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr"})

FIB_RESULTS: Final[Mapping[str, tuple[int, DataType]]] = {"oif": (1, _INDEX), "oifname": (2, _NAME), "type": (3, _T("fib_addrtype"))}
FIB_INPUTS: Final = {"saddr": 1, "daddr": 2, "mark": 4, "iif": 8, "oif": 16}


def payload(protocol: str, name: str) -> PayloadField:
    """Find a field of a header. Raises Unreadable."""
    try:
        return PAYLOAD[protocol, name]
    except KeyError:
        raise Unreadable(f"unknown field {protocol} {name}") from None


def types_of(expression: Expression, sets: Mapping[str, Set] | None = None) -> tuple[DataType, ...]:
    """Say what an expression yields, field by field. ``sets`` are the table's, for ``map @name``. Raises Unreadable."""
    match expression:
        case Payload(protocol, field):
            return (payload(protocol, field).type,)
        case Meta(key):
            return (META[key][1],)
        case Ct(key):
            return (CT[key][1],)
        case Fib(_, result):
            return (FIB_RESULTS[result][1],)
        case Numgen() | Hash():
            return (_HOST32,)
        case Masked(source):
            return types_of(source, sets)
        case Concatenation(parts):
            return tuple(kind for part in parts for kind in types_of(part, sets))
        case Constant(kind) | Prefix(kind) | Range(kind):
            return (kind,)
        case Lookup(_, Reference(name)):
            if sets is None or name not in sets:
                raise Unreadable(f"what map @{name} holds is not known here")
            return sets[name].value_types
        case Lookup(_, Set() as held):
            return held.value_types
    raise Unreadable(f"{expression} has no type of its own")
