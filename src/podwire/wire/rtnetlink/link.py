"""Links: veth pairs, bridges and their ports.

The order of the messages is the kernel's need, not taste:
- A veth pair is made in one message, its peer placed in another namespace, named, MACed and sized at once; neither side may
  be up yet (ENOTCONN), so up is a message of its own.
- The mode in which IPv6 makes addresses is read when the link goes up, and a message that sets both sets up first: mode
  before up, in two messages, or the link announces itself to the whole bridge.
- Flags of a bridge port exist once the link has a master.

Sources: include/uapi/linux/if_link.h; drivers/net/veth.c (veth_newlink), net/core/rtnetlink.c (do_setlink), net/bridge.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from struct import Struct
from typing import Final

from podwire.wire import netlink
from podwire.wire.rtnetlink.request import FLAGS, INET, INET6, UNSPECIFIED, Part, Request, Verb

NEWLINK, DELLINK, GETLINK, NEWLINKPROP, DELLINKPROP = 16, 17, 18, 108, 109

_HEADER: Final = Struct("=BxHiII")  # family, device type, index, flags, changed flags
_IFF_UP: Final = 1
_IFF_RUNNING: Final = 0x40

_ADDRESS, _NAME, _MTU, _LINK, _MASTER, _TX_QUEUES, _RX_QUEUES = 1, 3, 4, 5, 10, 31, 32
_LINKINFO, _ALIAS, _AF_SPEC, _NET_NS_FD, _EXT_MASK, _PROP_LIST, _ALT_NAME = 18, 20, 26, 28, 29, 52, 53
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA = 1, 2, 4, 5
_VETH_PEER: Final = 1
_INET6_ADDR_GEN_MODE: Final = 8
_INET_CONF: Final = 1
_IPV4_SETTINGS: Final = {"accept_redirects": 4, "secure_redirects": 5, "send_redirects": 6, "rp_filter": 8}
_SKIP_STATS: Final = 1 << 3
_NAME_OF_LINK: Final = re.compile(r"[^/\s]{1,15}")
_ONLY_NAME, _ONLY_LINK, _MAC_AND_MTU = frozenset({_NAME}), frozenset({_LINK}), frozenset({_ADDRESS, _MTU})

_MODES: Final = {"eui64": 0, "none": 1, "stable-privacy": 2, "random": 3}
_MODE_NAMES: Final = {number: name for name, number in _MODES.items()}

_PORT: Final = {"hairpin": 4, "learning": 8, "flood": 9, "mcast_flood": 27, "bcast_flood": 30, "neigh_suppress": 32, "isolated": 33}
_BRIDGE_FLAGS: Final = {"stp": (5, 4), "vlan_filtering": (7, 1), "mcast_snooping": (23, 1)}
_BRIDGE_NETFILTER: Final = (36, 37, 38)


@dataclass(frozen=True, slots=True)
class BridgePort:
    """Flags of a bridge port; None leaves the kernel's. Isolated ports forward to no other isolated port."""

    isolated: bool | None = None
    hairpin: bool | None = None
    learning: bool | None = None
    flood: bool | None = None
    mcast_flood: bool | None = None
    bcast_flood: bool | None = None
    neigh_suppress: bool | None = None

    @functools.lru_cache(maxsize=16)  # noqa: B019  (a value, of which there are few: each port has the same flags)
    def data(self) -> bytes:
        """The attributes of the flags that are set."""
        values = ((number, getattr(self, name)) for name, number in _PORT.items())
        return b"".join(netlink.u8(number, value) for number, value in values if value is not None)

    @classmethod
    def decode(cls, data: bytes) -> BridgePort:
        """From a dump, where every flag that this kernel knows is told."""
        found = netlink.attributes(data)
        return cls(**{name: bool(found[number][0]) for name, number in _PORT.items() if number in found})

    def printed(self) -> str:
        """As ``bridge link set`` takes them."""
        return "".join(f" {f.name} {'on' if getattr(self, f.name) else 'off'}" for f in fields(self) if getattr(self, f.name) is not None)


@dataclass(frozen=True, slots=True)
class Bridge:
    """Options of a bridge; None leaves the kernel's. ``netfilter``: hand bridged packets to the IP hooks, all families alike."""

    stp: bool | None = None
    vlan_filtering: bool | None = None
    mcast_snooping: bool | None = None
    netfilter: bool | None = None

    def data(self) -> bytes:
        """The attributes of the options that are set."""
        made = []
        for name, (number, width) in _BRIDGE_FLAGS.items():
            value = getattr(self, name)
            if value is not None:
                made.append((netlink.u32 if width == 4 else netlink.u8)(number, value))
        if self.netfilter is not None:
            made += [netlink.u8(number, self.netfilter) for number in _BRIDGE_NETFILTER]
        return b"".join(made)

    @classmethod
    def decode(cls, data: bytes) -> Bridge:
        """From a dump."""
        found = netlink.attributes(data)
        flags = {name: bool(netlink.to_int(found[number])) for name, (number, _) in _BRIDGE_FLAGS.items() if number in found}
        calls = [bool(found[number][0]) for number in _BRIDGE_NETFILTER if number in found]
        return cls(**flags, netfilter=any(calls) if calls else None)

    def printed(self) -> str:
        """As ``ip link add type bridge`` takes them."""
        words = [("stp_state", self.stp), ("vlan_filtering", self.vlan_filtering), ("mcast_snooping", self.mcast_snooping)]
        words += [(f"nf_call_{part}tables", self.netfilter) for part in ("ip", "ip6", "arp")]
        return "".join(f" {word} {int(value)}" for word, value in words if value is not None)


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. A field at its default is left to the kernel, or untouched by ``change``.

    ``index``: asked for when the link is made, else the kernel's choice. ``peer``: the other end of a new veth pair, with a
    ``namespace_fd`` if it is to be made elsewhere; it cannot be up at once. ``namespace_fd``: where a new link is made, or
    an existing one moved. ``master``: a bridge's name, "" to leave it. ``mac``: six bytes. ``address_mode``: how IPv6
    addresses come by themselves: "none", "eui64", "stable-privacy", "random". ``alias``: words for a reader, up to 255 bytes.
    ``alternative_names``: up to 127 bytes each. ``ipv4_settings``: (name, value) of net.ipv4.conf.NAME, of a link that exists: a file
    in /proc takes ten times as long. ``queues``: of a new link, each way. A veth gets one where 0 is said: the
    kernel would make one for each processor, which makes the pair dear (0.56 instead of 0.33 ms with two) and serves XDP alone.

    Read from a dump, every field is what the kernel says, ``peer`` and ``namespace_fd`` excepted; ``peer_index`` is the other
    end of a veth in its own namespace, or 0.
    """

    name: str
    kind: str = ""
    index: int = 0
    peer: Link | None = None
    master: str | None = None
    mac: bytes = b""
    mtu: int = 0
    up: bool | None = None
    namespace_fd: int | None = None
    bridge: Bridge | None = None
    bridge_port: BridgePort | None = None
    address_mode: str = ""
    alias: str = ""
    alternative_names: tuple[str, ...] = ()
    queues: int = 0
    peer_index: int = 0
    ipv4_settings: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if not _NAME_OF_LINK.fullmatch(self.name) or len(self.name.encode()) > 15 or self.name in {".", ".."}:
            raise ValueError(f"{self.name!r} is no name of a link: 1 to 15 bytes, no slash, no space")
        if self.peer is not None and self.peer.up:
            raise ValueError(f"link {self.name}: its peer {self.peer.name} cannot be made up; set it up in its own namespace")
        if any(name not in _IPV4_SETTINGS for name, _ in self.ipv4_settings):
            raise ValueError(f"link {self.name}: its settings of IPv4 are none of {', '.join(_IPV4_SETTINGS)}: {self.ipv4_settings}")
        if self.address_mode and self.address_mode not in _MODES:
            raise ValueError(f"link {self.name}: address mode {self.address_mode!r} is none of {', '.join(_MODES)}")

    # ------------------------------------------------------------------------------------------------------ requests

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:
        """The messages, in the order that the kernel needs."""
        if verb == "delete":
            yield Part(DELLINK, 0, self._head() + netlink.string(_NAME, self.name))
            return
        if verb == "show":
            yield Part(GETLINK, 0, query(self.name))
            return
        if verb != "change":
            yield Part(NEWLINK, FLAGS[verb], self._making(index))
        made = verb != "change"
        settings = self._settings(index, made=made)
        if self.address_mode:
            mode = self._families()
            # A link that is to go down goes down in the first of the two messages: nothing may leave it any more.
            down = self.up is False
            yield Part(NEWLINK, 0, self._head(False if down else None) + self._named() + settings + mode)
            settings = b""
            if down:
                yield from self._names()
                return
        elif self.ipv4_settings:
            settings += self._families()
        if settings or self.up is not None:
            yield Part(NEWLINK, 0, self._head(self.up) + self._named() + settings)
        yield from self._names()

    def _head(self, up: bool | None = None, index: int = 0) -> bytes:
        return _HEADER.pack(UNSPECIFIED, 0, index, _IFF_UP if up else 0, 0 if up is None else _IFF_UP)

    def _named(self) -> bytes:
        return netlink.string(_NAME, self.name)

    def _basics(self) -> bytes:
        made = [self._named()]
        if self.mac:
            made.append(netlink.attribute(_ADDRESS, self.mac))
        if self.mtu:
            made.append(netlink.u32(_MTU, self.mtu))
        return b"".join(made)

    def _new_queues(self, kind: str) -> int:
        return self.queues or (1 if kind == "veth" else 0)

    def _queues(self, kind: str) -> bytes:
        number = self._new_queues(kind)
        return netlink.u32(_TX_QUEUES, number) + netlink.u32(_RX_QUEUES, number) if number else b""

    def _making(self, index: Callable[[str], int]) -> bytes:
        data = b""
        if self.peer is not None:
            place = b"" if self.peer.namespace_fd is None else netlink.u32(_NET_NS_FD, self.peer.namespace_fd)
            data = netlink.nested(
                _VETH_PEER, self.peer._head(index=self.peer.index), self.peer._basics(), self.peer._queues(self.kind), place
            )
        elif self.bridge is not None:
            data = self.bridge.data()
        info = netlink.string(_INFO_KIND, self.kind) + (netlink.nested(_INFO_DATA, data) if data else b"")
        made = [self._head(index=self.index), self._basics(), self._queues(self.kind), netlink.nested(_LINKINFO, info)]
        if self.master:
            made.append(netlink.u32(_MASTER, index(self.master)))
        if self.namespace_fd is not None:
            made.append(netlink.u32(_NET_NS_FD, self.namespace_fd))
        return b"".join(made)

    def _settings(self, index: Callable[[str], int], *, made: bool) -> bytes:
        """What is set on a link that exists; ``made``: it was just made with what can be said then."""
        parts = []
        if not made:
            parts.append(self._basics()[len(self._named()) :])
            if self.master is not None:
                parts.append(netlink.u32(_MASTER, index(self.master) if self.master else 0))
            if self.namespace_fd is not None:
                parts.append(netlink.u32(_NET_NS_FD, self.namespace_fd))
            if self.bridge is not None:
                data = netlink.string(_INFO_KIND, "bridge") + netlink.nested(_INFO_DATA, self.bridge.data())
                parts.append(netlink.nested(_LINKINFO, data))
        if self.bridge_port is not None:
            data = netlink.string(_INFO_SLAVE_KIND, "bridge") + netlink.nested(_INFO_SLAVE_DATA, self.bridge_port.data())
            parts.append(netlink.nested(_LINKINFO, data))
        if self.alias:
            parts.append(netlink.attribute(_ALIAS, self.alias.encode()[:255]))
        return b"".join(parts)

    def _families(self) -> bytes:
        """What belongs to IPv4 or IPv6 on the link."""
        parts = []
        if self.ipv4_settings:
            values = (netlink.u32(_IPV4_SETTINGS[name], value) for name, value in self.ipv4_settings)
            parts.append(netlink.nested(INET, netlink.nested(_INET_CONF, *values)))
        if self.address_mode:
            parts.append(netlink.nested(INET6, netlink.u8(_INET6_ADDR_GEN_MODE, _MODES[self.address_mode])))
        return netlink.nested(_AF_SPEC, *parts)

    def _names(self) -> Iterator[Part]:
        if self.alternative_names:
            names = netlink.nested(_PROP_LIST, *(netlink.string(_ALT_NAME, name) for name in self.alternative_names))
            yield Part(NEWLINKPROP, netlink.CREATE | netlink.EXCL | netlink.APPEND, self._head() + self._named() + names)

    def printed(self, verb: Verb) -> str:
        """As ``ip link`` takes it; what takes several commands, joined by ``&&``."""
        if verb == "delete":
            return f"ip link delete dev {self.name}"
        if verb == "show":
            return f"ip link show dev {self.name}"
        commands = [] if verb == "change" else [self._printed_making(verb)]
        first, last = self._printed_settings(made=verb != "change")
        commands += [f"ip link set dev {self.name}{words}" for words in (first, last) if words]
        commands += [f"sysctl -w net.ipv4.conf.{self.name.replace('.', '/')}.{name}={value}" for name, value in self.ipv4_settings]
        commands += [f"ip link property add dev {self.name} altname {name}" for name in self.alternative_names]
        return " && ".join(commands)

    def _printed_making(self, verb: Verb) -> str:
        text = f"ip link {verb} name {self.name}{self._printed_queues(self.kind)}{self._printed_basics()}"
        text += f" index {self.index}" if self.index else ""
        text += f" type {self.kind}" if self.kind else ""
        text += self.bridge.printed() if self.bridge is not None else ""
        if self.peer is not None:
            text += f" peer name {self.peer.name}{self.peer._printed_queues(self.kind)}{self.peer._printed_basics()}"
            text += f" index {self.peer.index}" if self.peer.index else ""
        return text

    def _printed_queues(self, kind: str) -> str:
        number = self._new_queues(kind)
        return f" numtxqueues {number} numrxqueues {number}" if number else ""

    def _printed_basics(self) -> str:
        text = f" address {self.mac.hex(':')}" if self.mac else ""
        text += f" mtu {self.mtu}" if self.mtu else ""
        if self.master is not None:
            text += f" master {self.master}" if self.master else " nomaster"
        return text if self.namespace_fd is None else f"{text} netns /proc/self/fd/{self.namespace_fd}"

    def _printed_settings(self, *, made: bool) -> tuple[str, str]:
        """What comes before the link goes up, and the rest."""
        text = "" if made else self._printed_basics()
        text += f" alias '{self.alias}'" if self.alias else ""
        text += f" addrgenmode {self.address_mode.replace('-', '_')}" if self.address_mode else ""
        state = "" if self.up is None else " up" if self.up else " down"
        kind = ""
        if self.bridge is not None and not made:
            kind = f" type bridge{self.bridge.printed()}"
        elif self.bridge_port is not None:
            kind = f" type bridge_slave{self.bridge_port.printed()}"
        if self.address_mode and self.up:
            return text + kind, state
        return "", text + state + kind

    # ---------------------------------------------------------------------------------------------------- from dumps

    @classmethod
    def decode(cls, payload: bytes, names: Mapping[int, str]) -> Link:
        """From a ``NEWLINK`` message; ``names`` gives the names of masters that came before."""
        _, _, number, flags, _ = _HEADER.unpack_from(payload)
        found = netlink.attributes(payload, _HEADER.size)
        info = netlink.attributes(found.get(_LINKINFO, b""))
        kind = netlink.to_string(info.get(_INFO_KIND, b""))
        port = netlink.to_string(info.get(_INFO_SLAVE_KIND, b"")) == "bridge"
        data = info.get(_INFO_DATA)
        families = netlink.attributes(found.get(_AF_SPEC, b""))
        mode = netlink.attributes(families.get(INET6, b"")).get(_INET6_ADDR_GEN_MODE)
        master = netlink.to_int(found.get(_MASTER, b""))
        properties = netlink.attribute_list(found.get(_PROP_LIST, b""))
        return cls(
            name=netlink.to_string(found[_NAME]),
            kind=kind,
            index=number,
            master=names.get(master, f"if{master}") if master else "",
            mac=found.get(_ADDRESS, b""),
            mtu=netlink.to_int(found.get(_MTU, b"")),
            up=bool(flags & _IFF_UP),
            bridge=Bridge.decode(data) if kind == "bridge" and data is not None else None,
            bridge_port=BridgePort.decode(info.get(_INFO_SLAVE_DATA, b"")) if port else None,
            address_mode=_MODE_NAMES.get(mode[0], "") if mode else "",
            alias=netlink.to_string(found.get(_ALIAS, b"")),
            alternative_names=tuple(netlink.to_string(value) for key, value in properties if key == _ALT_NAME),
            queues=netlink.to_int(found.get(_TX_QUEUES, b"")),
            peer_index=netlink.to_int(found.get(_LINK, b"")) if kind == "veth" else 0,
        )


class LinkState:
    """What most who ask about a link want to know of it, read when it is asked for: to read all takes far longer than to be told.

    ``running``: it is up and has its carrier.
    """

    __slots__ = ("_payload", "index", "name", "running")

    def __init__(self, name: str, payload: bytes) -> None:
        self.name, self._payload = name, payload
        self.index: int = _HEADER.unpack_from(payload)[2]
        self.running = is_running(payload)

    @property
    def peer(self) -> int:
        """The index of a veth's other end, in that one's namespace; 0 where there is none."""
        return netlink.to_int(netlink.chosen(self._payload, _HEADER.size, _ONLY_LINK).get(_LINK, b""))

    def mac_and_mtu(self) -> tuple[bytes, int]:
        """Both, of one reading."""
        found = netlink.chosen(self._payload, _HEADER.size, _MAC_AND_MTU)
        return found.get(_ADDRESS, b""), netlink.to_int(found.get(_MTU, b""))


def show(name: str) -> Request:
    """Tell how a link is by then, which changes nothing; refused (ENODEV) if there is none of the name."""
    return Request("show", Link(name))


def query(name: str) -> bytes:
    """The payload of a ``GETLINK`` for one link by name."""
    return _HEADER.pack(UNSPECIFIED, 0, 0, 0, 0) + netlink.string(_NAME, name) + netlink.u32(_EXT_MASK, _SKIP_STATS)


def dump() -> bytes:
    """The payload of a ``GETLINK`` dump."""
    return _HEADER.pack(UNSPECIFIED, 0, 0, 0, 0) + netlink.u32(_EXT_MASK, _SKIP_STATS)


def identity(payload: bytes) -> tuple[int, str]:
    """Index and name from a ``NEWLINK`` message: what there is to know of most links."""
    return _HEADER.unpack_from(payload)[2], netlink.to_string(netlink.chosen(payload, _HEADER.size, _ONLY_NAME)[_NAME])


def is_running(payload: bytes) -> bool:
    """Whether the link of a ``NEWLINK`` message is up and has its carrier."""
    wanted = _IFF_UP | _IFF_RUNNING
    return bool(_HEADER.unpack_from(payload)[3] & wanted == wanted)
