"""Routes, and rules that choose a table by the packet's mark.

A route's metrics hold its congestion control (``RTAX_CC_ALGO``): the one way to choose it for the Pods of one namespace when
the machine's default is another and the sysctl is refused.

Sources: include/uapi/linux/{rtnetlink,fib_rules}.h; net/ipv4/fib_frontend.c, net/ipv6/route.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from struct import Struct
from typing import Final

from podwire.wire import netlink
from podwire.wire.rtnetlink.request import FLAGS, INET, INET6, Part, Verb

NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWRULE, DELRULE, GETRULE = 32, 33, 34

MAIN, LOCAL = 254, 255
#: Who made a route. Ours are "static" unless said otherwise.
PROTOCOL_KERNEL, PROTOCOL_BOOT, PROTOCOL_STATIC = 2, 3, 4
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST, SCOPE_NOWHERE = 0, 253, 254, 255

_ROUTE_HEADER: Final = Struct("=BBBBBBBBI")  # family, dst and src length, tos, table, protocol, scope, type, flags
_DST, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _METRICS, _TABLE = 1, 4, 5, 6, 7, 8, 15
_MTU, _CONGESTION = 2, 16
_ON_LINK: Final = 4
_CLONED: Final = 0x200
_IPV6_PRIORITY: Final = 1024

_TYPES: Final = {
    "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6, "unreachable": 7, "prohibit": 8, "throw": 9,
}  # fmt: skip
_TYPE_NAMES: Final = {number: name for name, number in _TYPES.items()}
_NOWHERE: Final = frozenset({6, 7, 8, 9})
_SCOPES: Final = {SCOPE_UNIVERSE: "global", SCOPE_LINK: "link", SCOPE_HOST: "host", SCOPE_NOWHERE: "nowhere"}

_RULE_HEADER: Final = Struct("=BBBBBxxBI")  # family, dst and src length, tos, table, action, flags
_RULE_PRIORITY, _RULE_MARK, _RULE_TABLE, _RULE_MASK = 6, 10, 15, 16
_TO_TABLE: Final = 1
_ALL_ONES: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Route:
    """A route with one next hop.

    ``table``: 254 is main, 255 local. ``scope`` None: what fits (host for local, link without gateway, else global); IPv6 has
    none. ``protocol``: who made it (66: forwarding rules). ``on_link``: the gateway is there although no address says so.
    ``congestion``: the congestion control of connections that leave by it. ``source``: the address they get. ``metric`` 0:
    the family's own (IPv6: 1024). ``type``: unicast, local, blackhole, unreachable, prohibit, throw, ...
    """

    destination: IPv4Network | IPv6Network
    gateway: IPv4Address | IPv6Address | None = None
    link: str = ""
    table: int = MAIN
    scope: int | None = None
    protocol: int = PROTOCOL_STATIC
    on_link: bool = False
    congestion: str = ""
    mtu: int = 0
    type: str = "unicast"
    source: IPv4Address | IPv6Address | None = None
    metric: int = 0

    def __post_init__(self) -> None:
        if self.type not in _TYPES:
            raise ValueError(f"route to {self.destination}: type {self.type!r} is none of {', '.join(_TYPES)}")
        if self.gateway is not None and self.gateway.version != self.destination.version:
            raise ValueError(f"route to {self.destination}: gateway {self.gateway} is of another address family")

    def fitting_scope(self) -> int:
        """The scope that the kernel wants where none is given."""
        if self.destination.version == 6:
            return SCOPE_UNIVERSE
        if self.type == "local":
            return SCOPE_HOST
        return SCOPE_LINK if self.type in {"unicast", "broadcast"} and self.gateway is None else SCOPE_UNIVERSE

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:
        """One message."""
        scope = self.scope if self.scope is not None else self.fitting_scope()
        attributes = []
        if self.destination.prefixlen:
            attributes.append(netlink.attribute(_DST, self.destination.network_address.packed))
        if self.table > 255:
            attributes.append(netlink.u32(_TABLE, self.table))
        if self.gateway is not None:
            attributes.append(netlink.attribute(_GATEWAY, self.gateway.packed))
        if self.link:
            attributes.append(netlink.u32(_OIF, index(self.link)))
        if self.source is not None:
            attributes.append(netlink.attribute(_SOURCE, self.source.packed))
        if self.metric:
            attributes.append(netlink.u32(_PRIORITY, self.metric))
        metrics = netlink.u32(_MTU, self.mtu) if self.mtu else b""
        metrics += netlink.string(_CONGESTION, self.congestion) if self.congestion else b""
        if metrics and verb != "delete":
            attributes.append(netlink.nested(_METRICS, metrics))
        header = _ROUTE_HEADER.pack(
            INET if self.destination.version == 4 else INET6,
            self.destination.prefixlen,
            0,
            0,
            self.table if self.table < 256 else 0,
            self.protocol,
            scope,
            _TYPES[self.type],
            _ON_LINK if self.on_link else 0,
        )
        yield Part(DELROUTE if verb == "delete" else NEWROUTE, FLAGS[verb], header + b"".join(attributes))

    def printed(self, verb: Verb) -> str:
        """As ``ip route`` takes it."""
        words = [f"ip -6 route {verb}" if self.destination.version == 6 else f"ip route {verb}"]
        words += [] if self.type == "unicast" else [self.type]
        words.append(str(self.destination) if self.destination.prefixlen else "default")
        words += [] if self.gateway is None else [f"via {self.gateway}"]
        words += [f"dev {self.link}"] if self.link else []
        words += [] if self.table == MAIN else [f"table {self.table}"]
        words += [f"proto {'static' if self.protocol == PROTOCOL_STATIC else self.protocol}"]
        words += [] if self.scope is None else [f"scope {_SCOPES.get(self.scope, self.scope)}"]
        words += [] if self.source is None else [f"src {self.source}"]
        words += [f"metric {self.metric}"] if self.metric else []
        words += [f"mtu {self.mtu}"] if self.mtu else []
        words += [f"congctl {self.congestion}"] if self.congestion else []
        words += ["onlink"] if self.on_link else []
        return " ".join(words)

    @classmethod
    def decode(cls, payload: bytes, names: Mapping[int, str]) -> Route | None:
        """From a ``NEWROUTE`` message; None for a cached clone of a route."""
        family, length, _, _, table, protocol, scope, kind, flags = _ROUTE_HEADER.unpack_from(payload)
        if family not in {INET, INET6} or flags & _CLONED:
            return None
        found = netlink.attributes(payload, _ROUTE_HEADER.size)
        metrics = netlink.attributes(found.get(_METRICS, b""))
        out = netlink.to_int(found.get(_OIF, b""))
        metric = netlink.to_int(found.get(_PRIORITY, b""))
        any_address = b"\0" * (4 if family == INET else 16)
        route = cls(
            destination=ip_network((found.get(_DST, any_address), length)),
            gateway=ip_address(found[_GATEWAY]) if _GATEWAY in found else None,
            # IPv6 shows the routes that lead nowhere on lo, IPv4 on no link.
            link=names.get(out, f"if{out}") if out and not (family == INET6 and kind in _NOWHERE) else "",
            table=netlink.to_int(found[_TABLE]) if _TABLE in found else table,
            scope=scope,
            protocol=protocol,
            on_link=bool(flags & _ON_LINK),
            congestion=netlink.to_string(metrics.get(_CONGESTION, b"")),
            mtu=netlink.to_int(metrics.get(_MTU, b"")),
            type=_TYPE_NAMES.get(kind, "unicast"),
            source=ip_address(found[_SOURCE]) if _SOURCE in found else None,
            metric=0 if family == INET6 and metric == _IPV6_PRIORITY else metric,
        )
        return route if scope != route.fitting_scope() else _without_scope(route)


def _without_scope(route: Route) -> Route:
    values = {name: getattr(route, name) for name in Route.__slots__}
    return Route(**{**values, "scope": None})


@dataclass(frozen=True, slots=True)
class Rule:
    """Packets with this mark are routed by this table. ``priority``: lower is asked earlier. ``version``: of IP, 4 or 6."""

    mark: int
    table: int
    priority: int
    version: int = 4
    mask: int = _ALL_ONES

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:  # noqa: ARG002  (rules name no link)
        """One message."""
        header = _RULE_HEADER.pack(INET if self.version == 4 else INET6, 0, 0, 0, self.table if self.table < 256 else 0, _TO_TABLE, 0)
        attributes = (
            netlink.u32(_RULE_PRIORITY, self.priority),
            netlink.u32(_RULE_MARK, self.mark),
            netlink.u32(_RULE_MASK, self.mask),
            netlink.u32(_RULE_TABLE, self.table),
        )
        yield Part(DELRULE if verb == "delete" else NEWRULE, FLAGS[verb], header + b"".join(attributes))

    def printed(self, verb: Verb) -> str:
        """As ``ip rule`` takes it."""
        mask = "" if self.mask == _ALL_ONES else f"/{self.mask:#x}"
        family = "-6 " if self.version == 6 else ""
        return f"ip {family}rule {verb} priority {self.priority} fwmark {self.mark:#x}{mask} table {self.table}"

    @classmethod
    def decode(cls, payload: bytes) -> Rule | None:
        """From a ``NEWRULE`` message; None for rules that do not choose a table by a mark (those of a new namespace)."""
        family, _, _, _, table, action, _ = _RULE_HEADER.unpack_from(payload)
        found = netlink.attributes(payload, _RULE_HEADER.size)
        if action != _TO_TABLE or _RULE_MARK not in found:
            return None
        return cls(
            mark=netlink.to_int(found[_RULE_MARK]),
            table=netlink.to_int(found[_RULE_TABLE]) if _RULE_TABLE in found else table,
            priority=netlink.to_int(found.get(_RULE_PRIORITY, b"")),
            version=4 if family == INET else 6,
            mask=netlink.to_int(found[_RULE_MASK]) if _RULE_MASK in found else _ALL_ONES,
        )


def route_dump(table: int | None = None) -> bytes:
    """The payload of a ``GETROUTE`` dump of both families; ``table`` narrows it in kernels that check strictly."""
    header = _ROUTE_HEADER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0)
    return header if table is None else header + netlink.u32(_TABLE, table)


def rule_dump() -> bytes:
    """The payload of a ``GETRULE`` dump of both families."""
    return _RULE_HEADER.pack(0, 0, 0, 0, 0, 0, 0)
