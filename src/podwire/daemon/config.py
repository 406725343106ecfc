"""What an agent must be told besides the API: one JSON or YAML file, decoded strictly.

A field that is missing has a default that suits a cluster of one's own making; a field that is unknown or of the wrong type is
refused by its name. kube-proxy's own configuration file is read, too, as leniently as kube-proxy reads it (kube_proxy.py). Addresses and
ranges are text here, each list in the order of the families, and are checked when they are read.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from podwire.daemon import kube_proxy


class ConfigError(ValueError):
    """A configuration that does not decode. The text names the file and the field."""


class Conntrack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Settings of the node's connection tracking, in seconds; None or 0 leaves a setting as it is. ``max_per_core`` is at least ``min``."""

    max_per_core: int | None = None
    min: int | None = None
    tcp_established_s: int | None = None
    tcp_close_wait_s: int | None = None
    tcp_be_liberal: bool = False
    udp_s: int | None = None
    udp_stream_s: int | None = None


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Fields are spelled as here. Ranges are in CIDR form; sockets are paths; "" and () mean: there is none."""

    cluster_name: str = "podwire"
    cluster_domain: str = "cluster.local"
    cluster_dns: tuple[str, ...] = ()
    pod_ranges: tuple[str, ...] = ()
    service_ranges: tuple[str, ...] = ()
    node_ranges: tuple[str, ...] = ()
    control_range: str = ""
    external_ranges: tuple[str, ...] = ()
    nat_address: str = ""
    region: str = ""
    zone: str = ""
    pod_cidrs: tuple[str, ...] = ()
    node_ips: tuple[str, ...] = ()
    node_labels: dict[str, str] = {}
    max_pods: int = 110
    ended_pods: int = 12_500  # of a cluster, that are kept
    init_socket: str = ""
    standins_socket: str = ""
    cni_socket: str = ""  # where podwire-cni asks; "": /run/podwire/cni.sock
    control_socket: str = ""
    state_dir: str = ""
    host_paths: tuple[str, ...] = ()  # folders of the machine below which Pods may have hostPath volumes
    images_dir: str = ""  # the store of images that containers are run from
    private: tuple[str, ...] = ()  # files and folders of the machine that no container is shown
    cgroups: dict[str, str] = {}  # below which the node's Pods have limits: folders by controller, and the version
    pod_pids_limit: int = 0  # processes that each Pod may have there; 0: no limit
    registries: tuple[str, ...] = ()  # whose images may be pulled
    signing_certificate: str = ""  # files: the authority by which the controllers sign certificates; without it they sign none
    signing_key: str = ""
    kubelet_certificate: str = ""  # files; without them the agent pods serves no logs, exec, attach and port-forward
    kubelet_key: str = ""
    kubelet_client_ca: str = ""
    kubelet_port: int = 10250
    log_level: str = "info"
    log_format: str = "text"
    health_port: int = 0
    proxy_mode: str = "nftables"  # or "iptables"
    node_port_addresses: tuple[str, ...] = ()  # ranges, or "primary": the node's own addresses
    proxy_node_address: str = ""  # the node's own of its family, whatever its Node says
    proxy_health_address: str = "0.0.0.0:10256"  # of the service proxy, on the node
    proxy_metrics_address: str = "127.0.0.1:10249"
    proxy_min_sync_s: float = 0.0  # the least time between two rounds of the service proxy
    masquerade_all: bool = False  # whoever uses a cluster address
    masquerade_bit: int = 14  # of the packet's mark, with proxy_mode iptables
    masquerade_pods: bool = True  # what Pods send to the outside
    conntrack: Conntrack = Conntrack()
    kubeconfig: str = ""  # as --kubeconfig, which goes before it
    node_name: str = ""  # as --node, which goes before it
    ignored: tuple[str, ...] = ()  # fields of a KubeProxyConfiguration that change nothing here, or are not known to it
    node_grace_s: float = 40.0


_RANGES = ("pod_ranges", "service_ranges", "node_ranges", "external_ranges", "control_range", "pod_cidrs")
_ADDRESSES = ("cluster_dns", "nat_address", "node_ips", "proxy_node_address")
_ENDPOINTS = ("proxy_health_address", "proxy_metrics_address")
_CHOICES = {"proxy_mode": ("nftables", "iptables"), "log_level": ("debug", "info", "warning", "error"), "log_format": ("text", "json")}


def load(path: str | Path | None) -> AgentConfig:
    """Read a configuration file, JSON or YAML. None gives the defaults. Raises ConfigError."""
    if path is None:
        return AgentConfig()
    try:
        body = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    try:
        return decode(body)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def decode(body: bytes) -> AgentConfig:
    """Raises ConfigError naming the field."""
    try:
        tree = msgspec.json.decode(body)
    except msgspec.DecodeError:
        tree = _yaml(body)
    if kube_proxy.is_one(tree):
        return _of_kube_proxy(tree, body)
    return _decoded(tree)


def _of_kube_proxy(tree: Any, body: bytes) -> AgentConfig:
    """Read kube-proxy's file. What is refused, and what is unknown, is told in its words, with the line."""
    root = _composed(body)
    try:
        fields = kube_proxy.fields(tree, functools.partial(_line, root), _repeated(root))
        try:
            return _decoded(fields)
        except ConfigError as error:
            field, _, words = str(error).partition(":")
            path = kube_proxy.path_of(field, fields["proxy_mode"])
            raise kube_proxy.Refused(path, f"{'.'.join(path)}:{words}") from error
    except kube_proxy.Refused as refused:
        raise ConfigError(f"line {_line(root, refused.path)}: {refused}") from refused


def _decoded(tree: Any) -> AgentConfig:
    try:
        config = msgspec.convert(tree or {}, AgentConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(str(error).replace("`$.", "`")) from error
    _check(config)
    return config


def _yaml(body: bytes) -> Any:
    import yaml  # not needed for the JSON that clusters of our own write

    try:
        return yaml.safe_load(body)
    except yaml.YAMLError as error:
        raise ConfigError(f"neither JSON nor YAML: {error}") from error


def _composed(body: bytes) -> Any:
    """Read a document as nodes, which know their lines. None for JSON that is no YAML: then no line is known but the first."""
    import yaml

    try:
        return yaml.compose(body.replace(b"\t", b" "), Loader=yaml.SafeLoader)  # JSON may have tabs, YAML not
    except yaml.YAMLError:
        return None


def _line(root: Any, path: kube_proxy.Path) -> int:
    """Find the line where a field, or an item of a list by its number, stands, or as much of the way to it as there is."""
    import yaml

    node, line = root, 1
    for part in path:
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(part)]
            line = node.start_mark.line + 1
            continue
        rows = node.value if isinstance(node, yaml.MappingNode) else ()
        found = next(((key, value) for key, value in reversed(rows) if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _repeated(node: Any, path: kube_proxy.Path = ()) -> Iterator[tuple[kube_proxy.Path, int, int]]:
    """Give the fields that are there again, with the line of each that counts for nothing and that of the last, which does."""
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in reversed(node.value):
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            yield (*path, name), line, lines[name]
        else:
            lines[name] = line
            yield from _repeated(value, (*path, name))


def _check(config: AgentConfig) -> None:
    for fields, parse, what in ((_RANGES, ipaddress.ip_network, "a range"), (_ADDRESSES, ipaddress.ip_address, "an address")):
        for field in fields:
            value = getattr(config, field)
            for text in (value,) if isinstance(value, str) else value:
                try:
                    if text:
                        parse(text)
                except ValueError as error:
                    raise ConfigError(f"{field}: {text!r} is not {what}: {error}") from error
    for text in config.node_port_addresses:
        try:
            if text != "primary":
                ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise ConfigError(f'node_port_addresses: {text!r} is neither a range nor "primary": {error}') from error
    for field in _ENDPOINTS:
        _check_endpoint(field, getattr(config, field))
    for field, choices in _CHOICES.items():
        if getattr(config, field) not in choices:
            raise ConfigError(f"{field}: {getattr(config, field)!r} is none of {', '.join(choices)}")
    if not 0 <= config.masquerade_bit <= 31:
        raise ConfigError(f"masquerade_bit: must be from 0 to 31, got {config.masquerade_bit}")
    if config.proxy_min_sync_s < 0:
        raise ConfigError(f"proxy_min_sync_s: must not be negative, got {config.proxy_min_sync_s}")
    for field in Conntrack.__struct_fields__:
        if (getattr(config.conntrack, field) or 0) < 0:
            raise ConfigError(f"conntrack.{field}: must not be negative, got {getattr(config.conntrack, field)}")
    if config.max_pods < 1:
        raise ConfigError(f"max_pods: must be at least 1, got {config.max_pods}")


def _check_endpoint(field: str, text: str) -> None:
    address, _, port = text.rpartition(":")
    try:
        if text:
            ipaddress.ip_address(address.strip("[]"))
            if not 0 < int(port) < 65536:
                raise ValueError("the port must be from 1 to 65535")
    except ValueError as error:
        raise ConfigError(f"{field}: {text!r} is no ADDRESS:PORT: {error}") from error
