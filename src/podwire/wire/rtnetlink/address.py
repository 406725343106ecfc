"""Addresses, permanent neighbour entries, and entries of a bridge's forwarding table.

Neighbour entries are permanent, because the kernel's table is one for the whole machine, its limit is not ours to raise,
and permanent entries do not count.

Sources: include/uapi/linux/{if_addr,neighbour}.h; net/ipv4/devinet.c, net/ipv6/addrconf.c, net/core/neighbour.c, net/bridge/br_fdb.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from struct import Struct
from typing import Final

from podwire.wire import netlink
from podwire.wire.rtnetlink.request import BRIDGE, FLAGS, INET, INET6, Part, Verb

NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30

_ADDRESS_HEADER: Final = Struct("=BBBBI")  # family, prefix length, flags, scope, index
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NO_DAD, _PERMANENT, _NO_PREFIX_ROUTE = 0x02, 0x80, 0x200

_NEIGHBOUR_HEADER: Final = Struct("=BxxxiHBB")  # family, index, state, flags, type
_NDA_DESTINATION, _NDA_MAC = 1, 2
_NUD_PERMANENT: Final = 0x80
_NUD_NOARP: Final = 0x40
_NTF_SELF, _NTF_MASTER = 0x02, 0x04


def family_of(address: IPv4Address | IPv6Address | IPv4Interface | IPv6Interface) -> int:
    """The address family's number."""
    return INET if address.version == 4 else INET6


@dataclass(frozen=True, slots=True)
class Address:
    """An address of a link, with its prefix length.

    ``no_prefix_route``: the kernel makes no route for the prefix. IPv6 addresses are made without duplicate address
    detection: they are allocated, and a second of waiting is not in the budget.
    """

    link: str
    address: IPv4Interface | IPv6Interface
    no_prefix_route: bool = False

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:
        """One message."""
        family, number = family_of(self.address), index(self.link)
        flags = (_NO_PREFIX_ROUTE if self.no_prefix_route else 0) | (_NO_DAD if family == INET6 else 0)
        loopback = self.address.is_loopback
        payload = [
            _ADDRESS_HEADER.pack(family, self.address.network.prefixlen, 0, 254 if loopback else 0, number),
            netlink.attribute(_IFA_LOCAL, self.address.packed),
            netlink.attribute(_IFA_ADDRESS, self.address.packed),
        ]
        if flags:
            payload.append(netlink.u32(_IFA_FLAGS, flags))
        yield Part(DELADDR if verb == "delete" else NEWADDR, FLAGS[verb], b"".join(payload))

    def printed(self, verb: Verb) -> str:
        """As ``ip address`` takes it."""
        flags = " noprefixroute" if self.no_prefix_route else ""
        flags += " nodad" if self.address.version == 6 and verb != "delete" else ""
        return f"ip address {verb} {self.address} dev {self.link}{flags}"

    @classmethod
    def decode(cls, payload: bytes, names: Mapping[int, str]) -> Address:
        """From a ``NEWADDR`` message."""
        _, length, flags, _, number = _ADDRESS_HEADER.unpack_from(payload)
        found = netlink.attributes(payload, _ADDRESS_HEADER.size)
        flags = netlink.to_int(found[_IFA_FLAGS]) if _IFA_FLAGS in found else flags
        local = ip_address(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])
        return cls(names.get(number, f"if{number}"), ip_interface((local, length)), bool(flags & _NO_PREFIX_ROUTE))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The MAC address of an IP address on a link, for good."""

    link: str
    address: IPv4Address | IPv6Address
    mac: bytes
    permanent: bool = True

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:
        """One message."""
        payload = _NEIGHBOUR_HEADER.pack(family_of(self.address), index(self.link), _NUD_PERMANENT, 0, 0)
        payload += netlink.attribute(_NDA_DESTINATION, self.address.packed)
        if verb != "delete":
            payload += netlink.attribute(_NDA_MAC, self.mac)
        yield Part(DELNEIGH if verb == "delete" else NEWNEIGH, FLAGS[verb], payload)

    def printed(self, verb: Verb) -> str:
        """As ``ip neighbour`` takes it."""
        rest = "" if verb == "delete" else f" lladdr {self.mac.hex(':')} nud permanent"
        return f"ip neighbour {verb} {self.address} dev {self.link}{rest}"

    @classmethod
    def decode(cls, payload: bytes, names: Mapping[int, str]) -> Neighbour | None:
        """From a ``NEWNEIGH`` message; None for what is no neighbour: other families, and the entries of multicast and loopback."""
        family, number, state, _, _ = _NEIGHBOUR_HEADER.unpack_from(payload)
        if family not in {INET, INET6} or state & _NUD_NOARP:
            return None
        found = netlink.attributes(payload, _NEIGHBOUR_HEADER.size)
        address = ip_address(found[_NDA_DESTINATION])
        return cls(names.get(number, f"if{number}"), address, found.get(_NDA_MAC, b""), bool(state & _NUD_PERMANENT))


@dataclass(frozen=True, slots=True)
class BridgeEntry:
    """Where a bridge sends frames for a MAC address: to this port, for good (so that nothing is flooded and nothing learned)."""

    link: str
    mac: bytes

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:
        """One message."""
        payload = _NEIGHBOUR_HEADER.pack(BRIDGE, index(self.link), _NUD_NOARP, _NTF_MASTER, 0) + netlink.attribute(_NDA_MAC, self.mac)
        yield Part(DELNEIGH if verb == "delete" else NEWNEIGH, FLAGS[verb], payload)

    def printed(self, verb: Verb) -> str:
        """As ``bridge fdb`` takes it."""
        return f"bridge fdb {verb} {self.mac.hex(':')} dev {self.link} master static"


def address_dump() -> bytes:
    """The payload of a ``GETADDR`` dump of both families."""
    return _ADDRESS_HEADER.pack(0, 0, 0, 0, 0)


def neighbour_dump() -> bytes:
    """The payload of a ``GETNEIGH`` dump of both families."""
    return _NEIGHBOUR_HEADER.pack(0, 0, 0, 0, 0)
