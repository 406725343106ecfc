"""kube-proxy's own configuration file, KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1, in the words of AgentConfig.

What belongs here: which of its fields say what, and what of them cannot be had here. What must not: reading files, checking what
AgentConfig's own words are checked for (config.py).

A field that is of the wrong type, or asks for what is not offered, is refused by its name and line. A field that is known and changes
nothing here is in ``ignored`` if it was set to anything. So is, with its line, one that is unknown, as those of an older or a newer
kube-proxy, and one that is given again further down: kube-proxy reads v1alpha1 strictly, and if nothing but that fails it says so and goes
on without (``loadConfig``). Fields that are null or empty are as if they were not there, as in a file that was written with all of them.
``mode`` left empty is nftables.

Of the two address families kube-proxy's own rules are followed, so that one file means the same to both:

- ``bindAddress`` is where nothing listens. Its family is that of the pages' usual addresses, and one that is neither all nor the loopback's
  is the node's own address of its family (``getDefaultAddresses``, ``detectNodeIPs``).
- ``clusterCIDR`` is one range, or one of each family, in either order, with nothing but a comma between (``validateDualStackCIDRStrings``).
  Of ``10.4.1.0/14`` the range counts, 10.4.0.0/14, as everywhere where kube-proxy reads a range.
- ``nodePortAddresses`` that have no range of a family leave that family's node ports on all its addresses (``NewNodePortAddresses``).
  ``primary`` stands alone, and is meant where ``mode: nftables`` and nothing else is said (``platformApplyDefaults``).
- The addresses of pages are ADDRESS:PORT, with brackets around an IPv6 address, or an address alone, without (``AppendPortIfNeeded``).

Source: https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/; kubernetes/kubernetes at v1.35: cmd/kube-proxy/app,
pkg/proxy/apis/config, pkg/proxy/util
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

GROUP = "kubeproxy.config.k8s.io"
VERSION = f"{GROUP}/v1alpha1"
KIND = "KubeProxyConfiguration"
Path = tuple[str, ...]  # the names that lead to a field


class Refused(ValueError):
    """A field that is wrong or not offered."""

    def __init__(self, path: Path, words: str) -> None:
        super().__init__(words)
        self.path = path


class _Section(msgspec.Struct, kw_only=True, rename="camel"):
    """A part of the file. What else there is was named by ``_unknown``."""


class _Rules(_Section):
    masquerade_bit: int = 14
    masquerade_all: bool = False
    sync_period: str = ""
    min_sync_period: str = ""


class _IPTables(_Rules):
    localhost_node_ports: bool = False


class _Conntrack(_Section):
    max_per_core: int | None = None
    min: int | None = None
    tcp_established_timeout: str = ""
    tcp_close_wait_timeout: str = ""
    tcp_be_liberal: bool = False
    udp_timeout: str = ""
    udp_stream_timeout: str = ""


class _Connection(_Section):
    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = ""
    qps: float = 0
    burst: int = 0


class _DetectLocal(_Section):
    bridge_interface: str = ""
    interface_name_prefix: str = ""


class _File(_Section):
    api_version: str
    kind: str
    feature_gates: dict[str, bool] = {}
    client_connection: _Connection = msgspec.field(default_factory=_Connection)
    logging: dict[str, Any] = {}
    hostname_override: str = ""
    bind_address: str = ""
    healthz_bind_address: str = ""
    metrics_bind_address: str = ""
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: str = ""
    iptables: _IPTables = msgspec.field(default_factory=_IPTables)
    nftables: _Rules = msgspec.field(default_factory=_Rules)
    ipvs: dict[str, Any] = {}
    winkernel: dict[str, Any] = {}
    detect_local_mode: str = ""
    detect_local: _DetectLocal = msgspec.field(default_factory=_DetectLocal)
    cluster_cidr: str = msgspec.field(default="", name="clusterCIDR")
    node_port_addresses: tuple[str, ...] = ()
    oom_score_adj: int | None = msgspec.field(default=None, name="oomScoreAdj")
    conntrack: _Conntrack = msgspec.field(default_factory=_Conntrack)
    config_sync_period: str = ""
    port_range: str = ""
    windows_run_as_service: bool = False


_NOTHING_HERE = (
    *(
        "featureGates",
        "logging",
        "bindAddressHardFail",
        "enableProfiling",
        "showHiddenMetricsForVersion",
        "ipvs",
        "winkernel",
        "oomScoreAdj",
    ),
    *("configSyncPeriod", "portRange", "windowsRunAsService", "detectLocal"),
)
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_HOST_PORT = re.compile(r"(?:\[([^][]*)\]|([^][:]*)):([0-9]+)")
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)")


def is_one(tree: Any) -> bool:
    """Say whether a decoded document is of kube-proxy's group."""
    return isinstance(tree, dict) and str(tree.get("apiVersion", "")).startswith(f"{GROUP}/")


def fields(tree: dict[str, Any], line: Callable[[Path], int], repeated: Iterable[tuple[Path, int, int]] = ()) -> dict[str, Any]:
    """Give the fields of AgentConfig that a KubeProxyConfiguration stands for. Raises Refused.

    ``line`` tells where a field stands. ``repeated`` are those that are given again, each with the line that counts for nothing and that
    which counts.
    """
    set_ = _without_nothing(tree)
    try:
        file = msgspec.convert(set_, _File)
    except msgspec.ValidationError as error:
        raise _refusal(error) from error
    if (file.api_version, file.kind) != (VERSION, KIND):
        at = "apiVersion" if file.api_version != VERSION else "kind"
        raise Refused((at,), f"{at}: {set_[at]!r} is not known here, only {KIND} of {VERSION}")
    if file.mode not in ("", "nftables", "iptables"):
        raise Refused(("mode",), f"mode: {file.mode!r} is not offered here, only nftables and iptables")
    if file.detect_local_mode not in ("", "ClusterCIDR"):
        raise Refused(("detectLocalMode",), f"detectLocalMode: {file.detect_local_mode!r} is not offered here, only ClusterCIDR")
    mode = file.mode or "nftables"
    rules = file.iptables if mode == "iptables" else file.nftables
    bound = _bound(file.bind_address or "0.0.0.0")  # noqa: S104  (kube-proxy's usual one)
    everywhere, here = ("0.0.0.0", "127.0.0.1") if bound.version == 4 else ("::", "::1")  # noqa: S104
    found = {
        "kubeconfig": file.client_connection.kubeconfig,
        "node_name": file.hostname_override.strip().lower(),  # as kube-proxy reads it
        "proxy_mode": mode,
        "pod_ranges": _cluster_cidr(file.cluster_cidr),
        "node_port_addresses": _node_port_addresses(file.node_port_addresses, file.mode),
        "proxy_node_address": "" if bound.is_unspecified or bound.is_loopback else str(bound),
        "proxy_health_address": _endpoint("healthzBindAddress", file.healthz_bind_address or everywhere, 10256),
        "proxy_metrics_address": _endpoint("metricsBindAddress", file.metrics_bind_address or here, 10249),
        "masquerade_all": rules.masquerade_all,
        "masquerade_bit": rules.masquerade_bit,
        "masquerade_pods": False,  # which no service proxy does
        "proxy_min_sync_s": _seconds((mode, "minSyncPeriod"), rules.min_sync_period) or 0.0,
        "conntrack": _conntrack(file.conntrack),
        "ignored": (
            *_ignored(file, set_, mode),
            *(f"{'.'.join(path)} (unknown, line {line(path)})" for path in _unknown(tree, _File)),
            *(
                f"{'.'.join(path)} (line {first}, given again in line {last})"
                for path, first, last in sorted(repeated, key=lambda one: one[1])
            ),
        ),
    }
    _seconds((mode, "syncPeriod"), rules.sync_period)
    return found


def path_of(field: str, mode: str) -> Path:
    """Give the way to what a field of AgentConfig was read from."""
    return {
        "masquerade_bit": (mode, "masqueradeBit"),
        "conntrack.max_per_core": ("conntrack", "maxPerCore"),
        "conntrack.min": ("conntrack", "min"),
    }.get(field, (field,))


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _without_nothing(one) for name, one in value.items() if one is not None}
    return value


def _unknown(section: dict[str, Any], known: type[msgspec.Struct], path: Path = ()) -> Iterator[Path]:
    """Give the fields that kube-proxy has not. Letters count, whether they are capitals or not."""
    types = {field.encode_name: field.type for field in msgspec.structs.fields(known)}
    for name, value in section.items():
        if name not in types:
            yield (*path, str(name))
        elif isinstance(value, dict) and isinstance(types[name], type) and issubclass(types[name], msgspec.Struct):
            yield from _unknown(value, types[name], (*path, name))


def _refusal(error: msgspec.ValidationError) -> Refused:
    """Find where msgspec means: it says ``... - at `$.conntrack.min` ``."""
    text = str(error)
    words, _, where = text.partition(" - at `$")
    path = tuple(part for part in re.split(r"[.\[\]`]+", where) if part)
    return Refused(path, f"{'.'.join(path)}: {words}" if path else words)


def _seconds(path: tuple[str, str], text: str) -> float | None:
    """Read a duration as Go writes it: ``1h0m0s``. None for one that is not set, or 0."""
    if not text or text == "0":
        return None
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise Refused(path, f"{'.'.join(path)}: {text!r} is no duration as 1h30m, 15s or 100ms")
    return sum(float(number) * _UNITS[unit] for number, unit in parts) or None


def _bound(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return _address(text)
    except ValueError as error:
        raise Refused(("bindAddress",), f"bindAddress: {text!r} is no IP address: {error}") from error


def _cluster_cidr(text: str) -> tuple[str, ...]:
    try:
        found = [_network(one) for one in text.split(",")] if text else []
    except ValueError as error:
        raise Refused(
            ("clusterCIDR",), f"clusterCIDR: {text!r} is not a range, nor one of each family with a comma between: {error}"
        ) from error
    if len({one.version for one in found}) < len(found):
        raise Refused(("clusterCIDR",), f"clusterCIDR: {text!r} has more than one range of a family; expected one range, or one of each")
    return tuple(map(str, found))


def _node_port_addresses(given: tuple[str, ...], mode: str) -> tuple[str, ...]:
    found = []
    for place, text in enumerate(given):
        at, words = ("nodePortAddresses", str(place)), f"nodePortAddresses[{place}]: {text!r}"
        if text == "primary" and len(given) > 1:
            raise Refused(at, f"{words} stands alone, and there are other ranges")
        try:
            found += [_network(text)] if text != "primary" else []
        except ValueError as error:
            raise Refused(at, f'{words} is neither a range nor "primary": {error}') from error
    if not found:
        return given or (("primary",) if mode == "nftables" else ())
    return (*map(str, found), *(whole for family, whole in _EVERYWHERE.items() if family not in {one.version for one in found}))


def _endpoint(field: str, text: str, port: int) -> str:
    """Read ADDRESS:PORT. An address alone has the usual port, also one that looks as if it had a port: ``::1:80``."""
    whole = _HOST_PORT.fullmatch(text)
    host, number = (whole[1] or whole[2], int(whole[3])) if whole else (text, port)
    try:
        address = _address(host)
        if not 0 < number < 65536:
            raise ValueError("the port must be from 1 to 65535")
    except ValueError as error:
        raise Refused((field,), f"{field}: {text!r} is no ADDRESS:PORT, nor an address: {error}") from error
    return f"{address}:{number}" if address.version == 4 else f"[{address}]:{number}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if "%" in text:
        raise ValueError("an address of one link alone")
    return ipaddress.ip_address(text)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Read ADDRESS/LENGTH, of which the address may be any in the range."""
    address, _, length = text.partition("/")
    if not re.fullmatch("[0-9]+", length):
        raise ValueError(f"{text!r} is not ADDRESS/LENGTH")
    _address(address)
    return ipaddress.ip_network(text, strict=False)


def _conntrack(section: _Conntrack) -> dict[str, Any]:
    found = {
        "max_per_core": 32768 if section.max_per_core is None else section.max_per_core,
        "min": 131072 if section.min is None else section.min,
        "tcp_established_s": _seconds(("conntrack", "tcpEstablishedTimeout"), section.tcp_established_timeout or "24h"),
        "tcp_close_wait_s": _seconds(("conntrack", "tcpCloseWaitTimeout"), section.tcp_close_wait_timeout or "1h"),
        "tcp_be_liberal": section.tcp_be_liberal,
        "udp_s": _seconds(("conntrack", "udpTimeout"), section.udp_timeout),
        "udp_stream_s": _seconds(("conntrack", "udpStreamTimeout"), section.udp_stream_timeout),
    }
    return {name: int(value) if isinstance(value, float) else value for name, value in found.items() if value is not None}


def _ignored(file: _File, given: dict[str, Any], mode: str) -> list[str]:
    found = [name for name in _NOTHING_HERE if _says_something(given.get(name))]
    if file.iptables.localhost_node_ports and mode == "iptables":
        found.append("iptables.localhostNodePorts")  # on 127.0.0.0/8 no node port is served
    return found


def _says_something(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_says_something, value.values()))
    return value not in (None, "", 0, "0", "0s", False, ()) and value != []
