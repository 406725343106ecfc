"""A network's configuration, as a runtime hands it to the plugin: read and checked. Pure; the standard library alone.

What belongs here: every field that this plugin knows, its default, and the refusal of what cannot be, by the field's name. What must not:
what is done about it (``plugin``).

Fields beside the specification's: ``mode`` (routed, bridge, ptp, chained), ``bridge``, ``mtu``, ``hairpinMode``, ``isGateway``, ``ipMasq``,
``dataDir``. ``ipam`` without a ``type`` is our own, with the fields of the plugin host-local: ``ranges``, or one ``subnet``; ``routes``.

Source: https://www.cni.dev/docs/spec/#section-1-network-configuration-format, https://www.cni.dev/docs/conventions/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any, Final, TypeVar

from podwire.pods.cni.errors import DECODING_FAILURE, INCOMPATIBLE_VERSION, INVALID_CONFIGURATION, UNSUPPORTED_FIELD, CniError

Tree = dict[str, Any]
IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST: Final = VERSIONS[-1]
MODES: Final = ("routed", "bridge", "ptp", "chained")
DATA_DIR: Final = "/var/lib/cni/podwire"

_STANDARD: Final = {
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "dns",
    "ipam",
    "ipMasq",
}
_OURS: Final = {"mode", "bridge", "mtu", "hairpinMode", "isGateway", "dataDir", "socket", "disableCheck", "disableGC"}
_FIELDS: Final = _STANDARD | _OURS
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_PROTOCOLS: Final = ("tcp", "udp", "sctp")
T = TypeVar("T")


@dataclass(frozen=True)
class AddressRange:
    """One range that addresses are given from. ``first`` and ``last`` None: as far as the subnet goes."""

    subnet: IPNetwork
    first: IPAddress | None
    last: IPAddress | None
    gateway: IPAddress


@dataclass(frozen=True)
class Route:
    destination: IPNetwork
    gateway: IPAddress | None


@dataclass(frozen=True)
class Ipam:
    """``delegate``: the name of another plugin, which is asked; "": the ranges are ours, one address from each list."""

    delegate: str = ""
    ranges: tuple[tuple[AddressRange, ...], ...] = ()
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True)
class PortMapping:
    """``host_address`` None: every address of the machine; the unspecified one: every one of its family."""

    host_port: int
    container_port: int
    protocol: str
    host_address: IPAddress | None


@dataclass(frozen=True)
class Rate:
    """Bits a second, and bits at once."""

    rate: int
    burst: int


@dataclass(frozen=True)
class Configuration:
    """``ingress`` and ``egress`` are seen from the container. ``previous`` is the result of the plugin before in a chain."""

    version: str
    name: str
    mode: str
    bridge: str
    mtu: int
    hairpin: bool
    is_gateway: bool
    masquerade: bool
    ipam: Ipam | None
    dns: Tree
    data_dir: str
    previous: Tree | None
    port_mappings: tuple[PortMapping, ...]
    ingress: Rate | None
    egress: Rate | None
    wanted: tuple[IPInterface, ...]
    mac: bytes
    attachments: tuple[tuple[str, str], ...] | None


def version_of(tree: Tree) -> str:
    """The version that a configuration is written in. Raises CniError for one that this plugin does not speak."""
    version = tree.get("cniVersion", "0.1.0")
    if version not in VERSIONS:
        words = f"incompatible CNI versions: the configuration is {version!r}, the plugin supports {', '.join(VERSIONS)}"
        raise CniError(INCOMPATIBLE_VERSION, words)
    return str(version)


def read(tree: Any, args: Mapping[str, str]) -> Configuration:
    """Read a configuration; ``args`` are the words of CNI_ARGS (IP and MAC are known). Raises CniError."""
    if not isinstance(tree, dict):
        raise CniError(DECODING_FAILURE, f"the configuration is no JSON object but {type(tree).__name__}")
    version = version_of(tree)
    for field, value in tree.items():
        if field not in _FIELDS and "/" not in field:
            raise CniError(UNSUPPORTED_FIELD, f"unsupported field {field!r}: {value!r}")
    name = _typed(tree, "name", str, "")
    if not _NAME.fullmatch(name):
        raise _wrong("name", f"expected letters, digits, '_', '.', '-', a letter or digit first, got {name!r}")
    mode = _typed(tree, "mode", str, MODES[0])
    if mode not in MODES:
        raise _wrong("mode", f"expected one of {', '.join(MODES)}, got {mode!r}")
    runtime = _typed(tree, "runtimeConfig", dict, {})
    ingress, egress = _bandwidth(runtime)
    return Configuration(
        version=version,
        name=name,
        mode=mode,
        bridge=_link(tree, "bridge", "cbr0"),
        mtu=_number(tree, "mtu", 0, 68, 65535),
        hairpin=_typed(tree, "hairpinMode", bool, False),
        is_gateway=_typed(tree, "isGateway", bool, True),
        masquerade=_typed(tree, "ipMasq", bool, False),
        ipam=_ipam(tree, mode, runtime),
        dns=_dns(tree, runtime),
        data_dir=_typed(tree, "dataDir", str, DATA_DIR),
        previous=_typed(tree, "prevResult", dict, {}) or None,
        port_mappings=tuple(_port_mapping(index, one) for index, one in enumerate(_typed(runtime, "portMappings", list, []))),
        ingress=ingress,
        egress=egress,
        wanted=_wanted(tree, runtime, args),
        mac=_mac(runtime, args),
        attachments=_attachments(tree),
    )


def _wrong(field: str, words: str) -> CniError:
    return CniError(INVALID_CONFIGURATION, f"{field}: {words}")


def _typed(tree: Tree, field: str, kind: type[T], default: T) -> T:
    value = tree.get(field)
    if value is None:
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _wrong(field, f"expected {kind.__name__}, got {value!r}")
    return value


def _number(tree: Tree, field: str, default: int, least: int, most: int) -> int:
    value = _typed(tree, field, int, default)
    if value != default and not least <= value <= most:
        raise _wrong(field, f"expected a number from {least} to {most}, got {value}")
    return value


def _link(tree: Tree, field: str, default: str) -> str:
    name = _typed(tree, field, str, default)
    if not is_link_name(name):
        raise _wrong(field, f"expected the name of an interface (1 to 15 bytes, no '/', no ':', no space), got {name!r}")
    return name


def is_link_name(name: str) -> bool:
    """Whether an interface can be called so."""
    return 0 < len(name.encode()) < 16 and name not in {".", ".."} and not re.search(r"[/:\s]", name)


def is_container_id(name: str) -> bool:
    """Whether a container can be called so."""
    return bool(_NAME.fullmatch(name))


def _parsed(field: str, text: Any, parse: Any, expected: str) -> Any:
    try:
        if not isinstance(text, str):
            raise TypeError
        return parse(text)
    except (TypeError, ValueError):
        raise _wrong(field, f"expected {expected}, got {text!r}") from None


def _ipam(tree: Tree, mode: str, runtime: Tree) -> Ipam | None:
    if mode == "chained":
        return None
    ipam = _typed(tree, "ipam", dict, {})
    delegate = _typed(ipam, "type", str, "")
    if delegate:
        if "/" in delegate:
            raise _wrong("ipam.type", f"expected the name of a plugin, got {delegate!r}")
        return Ipam(delegate)
    sets = runtime.get("ipRanges") or ipam.get("ranges") or ([[ipam]] if "subnet" in ipam else [])
    if not isinstance(sets, list) or not sets or not all(isinstance(one, list) and one for one in sets):
        raise _wrong("ipam.ranges", 'expected [[{"subnet": "10.4.0.0/24"}]] (or ipam.type, the name of an IPAM plugin)')
    ranges = tuple(tuple(_range(f"ipam.ranges[{a}][{b}]", each) for b, each in enumerate(one)) for a, one in enumerate(sets))
    families = [one[0].subnet.version for one in ranges]
    if len(set(families)) < len(families) or any(each.subnet.version != one[0].subnet.version for one in ranges for each in one):
        raise _wrong("ipam.ranges", "expected one list of ranges for each address family")
    routes = tuple(_route(f"ipam.routes[{index}]", one) for index, one in enumerate(_typed(ipam, "routes", list, [])))
    return Ipam("", ranges, routes)


def _range(field: str, tree: Any) -> AddressRange:
    if not isinstance(tree, dict):
        raise _wrong(field, f"expected an object with subnet, got {tree!r}")
    subnet: IPNetwork = _parsed(f"{field}.subnet", tree.get("subnet"), ip_network, "a range such as 10.4.0.0/24")
    if subnet.num_addresses < 4:
        raise _wrong(f"{field}.subnet", f"{subnet} is too small: it has no address to give")

    def within(name: str) -> IPAddress | None:
        if tree.get(name) in {None, ""}:
            return None
        address: IPAddress = _parsed(f"{field}.{name}", tree[name], ip_address, f"an address of {subnet}")
        if address not in subnet:
            raise _wrong(f"{field}.{name}", f"{address} is not in {subnet}")
        return address

    first, last = within("rangeStart"), within("rangeEnd")
    if first is not None and last is not None and int(first) > int(last):
        raise _wrong(f"{field}.rangeEnd", f"{last} comes before rangeStart {first}")
    return AddressRange(subnet, first, last, within("gateway") or subnet[1])


def _route(field: str, tree: Any) -> Route:
    if not isinstance(tree, dict):
        raise _wrong(field, f"expected an object with dst, got {tree!r}")
    destination: IPNetwork = _parsed(
        f"{field}.dst", tree.get("dst"), lambda text: ip_network(text, strict=False), "a range such as 0.0.0.0/0"
    )
    gateway = _parsed(f"{field}.gw", tree["gw"], ip_address, "an address") if tree.get("gw") else None
    return Route(destination, gateway)


def _dns(tree: Tree, runtime: Tree) -> Tree:
    dns = dict(_typed(tree, "dns", dict, {}))
    given = _typed(runtime, "dns", dict, {})
    for ours, theirs in (("nameservers", "servers"), ("search", "searches"), ("options", "options")):
        if given.get(theirs):
            dns[ours] = given[theirs]
    return dns


def _port_mapping(index: int, tree: Any) -> PortMapping:
    field = f"runtimeConfig.portMappings[{index}]"
    if not isinstance(tree, dict):
        raise _wrong(field, f"expected an object with hostPort and containerPort, got {tree!r}")
    protocol = str(tree.get("protocol") or "tcp").lower()
    if protocol not in _PROTOCOLS:
        raise _wrong(f"{field}.protocol", f"expected one of {', '.join(_PROTOCOLS)}, got {tree['protocol']!r}")
    ports = []
    for name in ("hostPort", "containerPort"):
        port = tree.get(name)
        if not isinstance(port, int) or not 0 < port < 65536:
            raise _wrong(f"{field}.{name}", f"expected a port from 1 to 65535, got {port!r}")
        ports.append(port)
    host = tree.get("hostIP") or ""
    address = _parsed(f"{field}.hostIP", host, ip_address, "an address") if host else None
    return PortMapping(ports[0], ports[1], protocol, address)


def _bandwidth(runtime: Tree) -> tuple[Rate | None, Rate | None]:
    tree = _typed(runtime, "bandwidth", dict, {})
    found: list[Rate | None] = []
    for way in ("ingress", "egress"):
        rate, burst = (_typed(tree, f"{way}{what}", int, 0) for what in ("Rate", "Burst"))
        if rate < 0 or burst < 0 or (not rate) != (not burst):
            raise _wrong(f"runtimeConfig.bandwidth.{way}Rate", f"a rate and a burst go together, got {rate} and {burst}")
        found.append(Rate(rate, burst) if rate else None)
    return found[0], found[1]


def _wanted(tree: Tree, runtime: Tree, args: Mapping[str, str]) -> tuple[IPInterface, ...]:
    given = _typed(_typed(_typed(tree, "args", dict, {}), "cni", dict, {}), "ips", list, [])
    texts = _typed(runtime, "ips", list, []) or given or [word for word in args.get("IP", "").split(",") if word]
    return tuple(_parsed("ips", text, ip_interface, "an address") for text in texts)


def _mac(runtime: Tree, args: Mapping[str, str]) -> bytes:
    text = _typed(runtime, "mac", str, "") or args.get("MAC", "")
    if text and not _MAC.fullmatch(text):
        raise _wrong("mac", f"expected a MAC address such as 0a:58:0a:04:00:02, got {text!r}")
    return bytes.fromhex(text.replace(":", ""))


def _attachments(tree: Tree) -> tuple[tuple[str, str], ...] | None:
    """What GC is to keep."""
    given = tree.get("cni.dev/valid-attachments")
    if given is None:
        return None
    try:
        return tuple((str(one["containerID"]), str(one["ifname"])) for one in given)
    except (KeyError, TypeError):
        raise _wrong("cni.dev/valid-attachments", f"expected a list of objects with containerID and ifname, got {given!r}") from None
