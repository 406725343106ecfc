"""The cluster's specification: what a person asks for.

What belongs here: reading ``cluster.yaml`` (``apiVersion: podwire.dev/v1alpha1``, ``kind: Cluster``), its defaults, and refusing
what cannot be, in the words of the file: file, line, field, what was expected. What must not: what runs where (that is plan.py).

Defaults follow ../shared/spec and GKE: a region of three zones, one node a zone, a /24 of Pod addresses for each node.
Source: https://cloud.google.com/kubernetes-engine/docs/concepts/alias-ips
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Literal, TypeVar

import msgspec

from podwire.cluster import paths
from podwire.images.reference import on_loopback
from podwire.lib import yaml_limits

API_VERSION = "podwire.dev/v1alpha1"
DEFAULT_NAME = "podwire"
POD_PREFIX = 24
POD_PREFIX_IPV6 = 112
LEAST_PIDS, MOST_PIDS = 32, 4_194_304
DEFAULT_PODS_PER_NODE = 110
MAX_PODS_PER_NODE = 1023
"""As many ports as a bridge of Linux has."""
INTERNET = IPv4Network("198.51.100.0/24")
MAX_NODES_PER_ZONE = 100
OPEN_FILES = 1024  # what a user must be able to have open, whatever the cluster
DEFAULT_GRACE_S, SHORTEST_GRACE_S, LONGEST_GRACE_S = 40.0, 2.0, 3600.0
_Network = TypeVar("_Network", IPv4Network, IPv6Network)
_NODE_NAME = re.compile(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?")
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_REGISTRY = re.compile(r"([a-zA-Z0-9][-.a-zA-Z0-9]*|\[[0-9a-fA-F:]+\])(:[0-9]+)?(/[-._/a-z0-9]*)?")
_ZONE_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Invalid(ValueError):
    """A specification that cannot be. The text names the file and line where known, the field, and what was expected."""


@dataclass(frozen=True)
class NodePool:
    """``node_names``: those of the first zone, then those of the next; none: they follow GKE."""

    name: str
    zones: tuple[str, ...]
    nodes_per_zone: int
    node_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ranges:
    """Address ranges, no two of which overlap. Those of the second family are there in a dual-stack cluster alone."""

    nodes: IPv4Network
    pods: IPv4Network
    services: IPv4Network
    control_plane: IPv4Network
    external: IPv4Network
    nodes_ipv6: IPv6Network | None = None
    pods_ipv6: IPv6Network | None = None
    services_ipv6: IPv6Network | None = None


@dataclass(frozen=True)
class ClusterSpec:
    name: str
    region: str
    node_pools: tuple[NodePool, ...]
    ranges: Ranges
    proxy_mode: str = "nftables"
    audit_level: str = ""
    """What the API's audit log holds of a request; ``""``: there is none."""
    max_pods_per_node: int = DEFAULT_PODS_PER_NODE
    node_grace_s: float = DEFAULT_GRACE_S
    """How long a node may not be heard of before it counts as lost."""
    host_paths: tuple[str, ...] = ()
    """Folders of the machine below which Pods may have hostPath volumes."""
    registries: tuple[str, ...] = ()
    """Whose images nodes may pull. Those on the loopback address are the machine's."""
    pod_pids_limit: int = 0
    """How many processes a Pod may have in a cluster with limits; 0: as many as there can be."""

    @property
    def machine_registries(self) -> tuple[str, ...]:
        """``HOST:PORT`` of the registries on the machine's loopback."""
        hosts = dict.fromkeys(name.partition("/")[0] for name in self.registries)
        return tuple(host for host in hosts if on_loopback(host))

    @property
    def pod_prefix(self) -> int:
        """The length of a node's range of Pod addresses: twice as many as it may have Pods, so that one just freed can rest.

        Source: https://cloud.google.com/kubernetes-engine/docs/how-to/flexible-pod-cidr
        """
        return min(POD_PREFIX, 32 - (2 * self.max_pods_per_node - 1).bit_length())

    @property
    def dual_stack(self) -> bool:
        return self.ranges.nodes_ipv6 is not None

    @property
    def node_count(self) -> int:
        return sum(len(pool.zones) * pool.nodes_per_zone for pool in self.node_pools)


# The file's form ---------------------------------------------------------------------------------------------------------


class _Form(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    pass


class _Metadata(_Form, frozen=True):
    name: str = ""


class _NodePool(_Form, frozen=True):
    name: str = "default-pool"
    zones: tuple[str, ...] = ()
    nodes_per_zone: int = 1
    node_names: tuple[str, ...] = ()


class _Ranges(_Form, frozen=True):
    nodes: str = "10.128.0.0/20"
    pods: str = "10.4.0.0/14"
    services: str = "10.8.0.0/20"
    control_plane: str = "10.127.0.0/28"
    external: str = "203.0.113.0/24"
    nodes_ipv6: str | None = msgspec.field(default=None, name="nodesIPv6")
    pods_ipv6: str | None = msgspec.field(default=None, name="podsIPv6")
    services_ipv6: str | None = msgspec.field(default=None, name="servicesIPv6")


class _Audit(_Form, frozen=True):
    level: Literal["Metadata", "Request", "RequestResponse"] = "Metadata"


class _Spec(_Form, frozen=True):
    region: str = "us-central1"
    stack_type: Literal["IPV4", "IPV4_IPV6"] = "IPV4"
    proxy_mode: Literal["nftables", "iptables"] = "nftables"
    node_pools: tuple[_NodePool, ...] = (_NodePool(),)
    max_pods_per_node: int = DEFAULT_PODS_PER_NODE
    ranges: _Ranges = _Ranges()
    audit: _Audit | None = None
    node_monitor_grace_period_seconds: float = DEFAULT_GRACE_S
    host_paths: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    pod_pids_limit: int = 0


class _Cluster(_Form, frozen=True):
    api_version: Literal["podwire.dev/v1alpha1"]
    kind: Literal["Cluster"]
    metadata: _Metadata = _Metadata()
    spec: _Spec = _Spec()


# Smallest prefix lengths: what each range must have room for, whatever the number of nodes.
_SMALLEST = {"nodes": 29, "pods": 24, "services": 27, "controlPlane": 28, "external": 29}
_SMALLEST_IPV6 = {"nodesIPv6": 120, "podsIPv6": POD_PREFIX_IPV6, "servicesIPv6": 120}
_DEFAULT_IPV6 = {"nodesIPv6": "fd20:0:80::/64", "podsIPv6": "fd20:0:4::/64", "servicesIPv6": "fd20:0:8::/112"}


def parse(
    text: str,
    *,
    file: str = "",
    name: str | None = None,
    zones: int | None = None,
    nodes_per_zone: int | None = None,
) -> ClusterSpec:
    """Read a specification; ``""`` means all defaults.

    ``name``, ``zones`` and ``nodes_per_zone`` override what the text says (the command line's words); the latter two hold for
    every node pool. Raises Invalid.
    """
    tree, lines = _tree(text, file)
    try:
        form = msgspec.convert(tree, _Cluster)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        raise Invalid(_at(file, lines, *_expected(path.rstrip("`").removeprefix("$").removeprefix("."), message))) from None
    fault = _Fault(file, lines)
    spec = form.spec
    ranges = _ranges(spec.ranges, fault, dual_stack=spec.stack_type == "IPV4_IPV6")
    pools = tuple(_pool(index, pool, spec.region, zones, nodes_per_zone, fault) for index, pool in enumerate(spec.node_pools))
    if not pools:
        raise fault("spec.nodePools", "at least one node pool is needed")
    named = [name for pool in pools for name in pool.node_names]
    if len(set(named)) < len(named):
        raise fault("spec.nodePools", f"two nodes have the name {max(named, key=named.count)!r}")
    if len({pool.name for pool in pools}) < len(pools):
        raise fault("spec.nodePools", "two node pools have the same name")
    chosen = (form.metadata.name or DEFAULT_NAME) if name is None else name
    if not paths.is_name(chosen):
        where = "metadata.name" if name is None else "--name"
        raise fault(where, f"{chosen!r} is no cluster name: {paths.NAME_RULE}")
    if not 1 <= spec.max_pods_per_node <= MAX_PODS_PER_NODE:
        words = f"expected a number from 1 to {MAX_PODS_PER_NODE} (a bridge of Linux has no more ports), got {spec.max_pods_per_node}"
        raise fault("spec.maxPodsPerNode", words)
    if spec.pod_pids_limit and not LEAST_PIDS <= spec.pod_pids_limit <= MOST_PIDS:
        raise fault("spec.podPidsLimit", f"expected a number from {LEAST_PIDS} to {MOST_PIDS}, got {spec.pod_pids_limit}")
    grace_s = spec.node_monitor_grace_period_seconds
    if not SHORTEST_GRACE_S <= grace_s <= LONGEST_GRACE_S:
        words = f"expected a number of seconds from {SHORTEST_GRACE_S:g} to {LONGEST_GRACE_S:g}, got {grace_s:g}"
        raise fault("spec.nodeMonitorGracePeriodSeconds", words)
    audit = spec.audit.level if spec.audit is not None else ""
    hosts, registries = _host_paths(spec.host_paths, fault), _registries(spec.registries, fault)
    cluster = ClusterSpec(
        chosen,
        spec.region,
        pools,
        ranges,
        spec.proxy_mode,
        audit,
        spec.max_pods_per_node,
        grace_s,
        hosts,
        registries,
        spec.pod_pids_limit,
    )
    _has_room(cluster, fault)
    return cluster


def _expected(field: str, message: str) -> tuple[str, str]:
    """Give the field that is wrong, and what is expected there, for what msgspec says and where."""
    form: Any = msgspec.inspect.type_info(_Cluster)
    for part in re.findall(r"[^.\[\]]+", field):
        form = form.item_type if isinstance(form, msgspec.inspect.VarTupleType) else _fields(form)[part]
    if unknown := re.search("unknown field `(.*)`", message):
        return f"{field}.{unknown[1]}".lstrip("."), f"there is no such field; expected one of {', '.join(_fields(form))}"
    if isinstance(form, msgspec.inspect.LiteralType):
        return field, f"expected {' or '.join(map(str, form.values))}, got {message.removeprefix('Invalid enum value ')}"
    return field, message[:1].lower() + message[1:]


def _fields(form: Any) -> dict[str, Any]:
    structure = next(one for one in getattr(form, "types", (form,)) if isinstance(one, msgspec.inspect.StructType))
    return {one.encode_name: one.type for one in structure.fields}


def _pool_tree(pool: NodePool) -> dict[str, Any]:
    tree = {"name": pool.name, "zones": list(pool.zones), "nodesPerZone": pool.nodes_per_zone}
    return {**tree, "nodeNames": list(pool.node_names)} if pool.node_names else tree


def manifest(spec: ClusterSpec) -> dict[str, Any]:
    """Give the specification as a Cluster manifest with every default written out; ``parse`` reads it back."""
    ranges = spec.ranges
    second = {"nodesIPv6": ranges.nodes_ipv6, "podsIPv6": ranges.pods_ipv6, "servicesIPv6": ranges.services_ipv6}
    return {
        "apiVersion": API_VERSION,
        "kind": "Cluster",
        "metadata": {"name": spec.name},
        "spec": {
            "region": spec.region,
            "stackType": "IPV4_IPV6" if spec.dual_stack else "IPV4",
            "proxyMode": spec.proxy_mode,
            **({"audit": {"level": spec.audit_level}} if spec.audit_level else {}),
            "maxPodsPerNode": spec.max_pods_per_node,
            **({"nodeMonitorGracePeriodSeconds": spec.node_grace_s} if spec.node_grace_s != DEFAULT_GRACE_S else {}),
            **({"hostPaths": list(spec.host_paths)} if spec.host_paths else {}),
            **({"registries": list(spec.registries)} if spec.registries else {}),
            **({"podPidsLimit": spec.pod_pids_limit} if spec.pod_pids_limit else {}),
            "nodePools": [_pool_tree(pool) for pool in spec.node_pools],
            "ranges": {
                "nodes": str(ranges.nodes),
                "pods": str(ranges.pods),
                "services": str(ranges.services),
                "controlPlane": str(ranges.control_plane),
                "external": str(ranges.external),
                **{name: str(network) for name, network in second.items() if network is not None},
            },
        },
    }


@dataclass(frozen=True)
class _Fault:
    file: str
    lines: Mapping[str, int]

    def __call__(self, field: str, message: str) -> Invalid:
        return Invalid(_at(self.file, self.lines, field, message))


def _at(file: str, lines: Mapping[str, int], field: str, message: str) -> str:
    """Say where: the line of the field itself, or of the nearest thing around it that the file names."""
    around = field
    while around and around not in lines:
        around = re.sub(r"(\.[^.\[]*|\[\d+\]|^[^.\[]+)$", "", around)
    line = lines.get(around)
    place = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
    return f"{place}{field}: {message}" if field else f"{place}{message}"


def _tree(text: str, file: str) -> tuple[dict[str, Any], dict[str, int]]:
    """Give the plain tree of a YAML text and the line of each field, keyed as errors name it (``spec.nodePools[0].zones``)."""
    if not file and not text.strip():
        return {"apiVersion": API_VERSION, "kind": "Cluster"}, {}
    import yaml  # most clusters have no file, and PyYAML costs 20 ms

    try:
        yaml_limits.check(text, yaml.CSafeLoader)
        tree = yaml.load(text, Loader=yaml.CSafeLoader)
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        # The end of a text that has no last line break counts as a line of its own to the parser, not to a person.
        place = f"{file}:{min(mark.line + 1, len(text.splitlines()))}: " if mark else f"{file}: "
        if error.problem == "but found another document":
            raise Invalid(f"{place}expected one Cluster, and there is another document") from None
        raise Invalid(f"{place}not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise Invalid(f"{file}: not YAML: {error}") from None
    except yaml_limits.Excessive as error:
        raise Invalid(f"{file}:{error.line}: {error}") from None
    if tree is None:
        raise Invalid(f"{file}: expected a Cluster, and there is nothing")
    if not isinstance(tree, dict):
        raise Invalid(f"{file}:1: expected a Cluster (a mapping with apiVersion, kind and spec), got {type(tree).__name__}")
    lines: dict[str, int] = {}

    def walk(node: Any, path: str) -> None:
        lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                child = f"{path}.{key.value}" if path else str(key.value)
                lines[child] = key.start_mark.line + 1
                walk(value, child)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, f"{path}[{index}]")

    walk(node, "")
    return tree, lines


def _pool(index: int, pool: _NodePool, region: str, zones: int | None, nodes_per_zone: int | None, fault: _Fault) -> NodePool:
    field = f"spec.nodePools[{index}]"
    if not _NAME.fullmatch(pool.name):
        raise fault(f"{field}.name", f"{pool.name!r} is no node pool name: lower-case letters, digits and '-', a letter first")
    if zones is not None and not 1 <= zones <= len(_ZONE_LETTERS):
        raise fault("--zones", f"expected a number from 1 to {len(_ZONE_LETTERS)}, got {zones}")
    per_zone = nodes_per_zone if nodes_per_zone is not None else pool.nodes_per_zone
    if not 0 <= per_zone <= MAX_NODES_PER_ZONE:
        word = "--nodes-per-zone" if nodes_per_zone is not None else f"{field}.nodesPerZone"
        raise fault(word, f"expected a number from 0 to {MAX_NODES_PER_ZONE}, got {per_zone}")
    named = pool.zones if zones is None else ()
    for place, zone in enumerate(named):
        if not re.fullmatch(re.escape(region) + "-[a-z]", zone):
            raise fault(f"{field}.zones[{place}]", f"{zone!r} is no zone of region {region}: expected {region}-a, {region}-b ...")
    if len(set(named)) < len(named):
        raise fault(f"{field}.zones", "a zone is named twice")
    count = zones if zones is not None else 3
    chosen = named or tuple(f"{region}-{letter}" for letter in _ZONE_LETTERS[:count])
    return NodePool(pool.name, chosen, per_zone, _node_names(pool.node_names, len(chosen) * per_zone, f"{field}.nodeNames", fault))


def _node_names(names: tuple[str, ...], count: int, field: str, fault: _Fault) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if not _NODE_NAME.fullmatch(name):
            raise fault(f"{field}[{index}]", f"{name!r} is no node name: at most 52 lower-case letters, digits and '-', a letter first")
    if names and len(names) != count:
        raise fault(field, f"expected a name for each of {count} nodes (zones times nodesPerZone), got {len(names)}")
    return names


def _host_paths(folders: tuple[str, ...], fault: _Fault) -> tuple[str, ...]:
    for index, folder in enumerate(folders):
        if not folder.startswith("/") or ".." in folder.split("/"):
            raise fault(f"spec.hostPaths[{index}]", f"expected the absolute path of a folder of the machine, got {folder!r}")
        if not folder.strip("/"):
            raise fault(f"spec.hostPaths[{index}]", "the whole machine is given to no container: name a folder")
    return tuple(folder.rstrip("/") for folder in folders)


def _registries(names: tuple[str, ...], fault: _Fault) -> tuple[str, ...]:
    for index, name in enumerate(names):
        if not _REGISTRY.fullmatch(name):
            raise fault(f"spec.registries[{index}]", f"expected HOST[:PORT][/PATH] of a registry, without https://, got {name!r}")
        host = name.partition("/")[0]
        if on_loopback(host) and not host.rpartition("]")[2].rpartition(":")[2].isdigit():
            raise fault(f"spec.registries[{index}]", f"expected the port of a registry on this machine, {host}:PORT, got {name!r}")
    return tuple(name.rstrip("/") for name in names)


def _ranges(form: _Ranges, fault: _Fault, *, dual_stack: bool) -> Ranges:
    texts = {
        "nodes": form.nodes,
        "pods": form.pods,
        "services": form.services,
        "controlPlane": form.control_plane,
        "external": form.external,
    }
    networks: dict[str, IPv4Network] = {}
    for name, text in texts.items():
        field = f"spec.ranges.{name}"
        try:
            network = IPv4Network(text)
        except ValueError as error:
            raise fault(field, f"expected an IPv4 range such as {getattr(_Ranges(), _snake(name))}, got {text!r} ({error})") from None
        _check_range(field, network, _SMALLEST[name], fault)
        networks[name] = network
    _check_overlap(networks, fault)
    for name, network in networks.items():
        if network.overlaps(INTERNET):
            raise fault(f"spec.ranges.{name}", f"{network} overlaps {INTERNET}, where the lab's internet clients live")
    second = _ranges_ipv6(form, fault, dual_stack=dual_stack)
    return Ranges(
        networks["nodes"],
        networks["pods"],
        networks["services"],
        networks["controlPlane"],
        networks["external"],
        second.get("nodesIPv6"),
        second.get("podsIPv6"),
        second.get("servicesIPv6"),
    )


def _ranges_ipv6(form: _Ranges, fault: _Fault, *, dual_stack: bool) -> dict[str, IPv6Network]:
    texts = {"nodesIPv6": form.nodes_ipv6, "podsIPv6": form.pods_ipv6, "servicesIPv6": form.services_ipv6}
    networks: dict[str, IPv6Network] = {}
    for name, text in texts.items():
        field = f"spec.ranges.{name}"
        if not dual_stack:
            if text is not None:
                raise fault(field, "only a cluster with spec.stackType: IPV4_IPV6 has IPv6 ranges")
            continue
        try:
            network = IPv6Network(_DEFAULT_IPV6[name] if text is None else text)
        except ValueError as error:
            raise fault(field, f"expected an IPv6 range such as {_DEFAULT_IPV6[name]}, got {text!r} ({error})") from None
        _check_range(field, network, _SMALLEST_IPV6[name], fault)
        networks[name] = network
    _check_overlap(networks, fault)
    return networks


def _check_range(field: str, network: IPv4Network | IPv6Network, smallest: int, fault: _Fault) -> None:
    if network.prefixlen > smallest:
        raise fault(field, f"{network} is too small: at least a /{smallest} is needed")
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise fault(field, f"{network} is loopback, link-local, multicast or unspecified, which cannot be routed")


def _check_overlap(networks: Mapping[str, _Network], fault: _Fault) -> None:
    for (first, a), (second, b) in itertools.combinations(networks.items(), 2):
        if a.overlaps(b):
            raise fault(f"spec.ranges.{second}", f"{b} overlaps spec.ranges.{first} ({a})")


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda letter: "_" + letter.group().lower(), name)


def _has_room(cluster: ClusterSpec, fault: _Fault) -> None:
    count, ranges = cluster.node_count, cluster.ranges
    if count == 0:
        raise fault("spec.nodePools", "a cluster needs at least one node")
    # The network's own address, the gateway and the last two are taken, as in a VPC subnet.
    room = ranges.nodes.num_addresses - 4
    if count > room:
        raise fault("spec.ranges.nodes", f"{ranges.nodes} has room for {room} nodes, {count} are asked for")
    room = (1 << cluster.pod_prefix) >> ranges.pods.prefixlen
    if count > room:
        raise fault("spec.ranges.pods", f"{ranges.pods} has room for {room} nodes of a /{cluster.pod_prefix} each, {count} are asked for")
    if ranges.nodes_ipv6 is None or ranges.pods_ipv6 is None:
        return
    room = ranges.nodes_ipv6.num_addresses - 2
    if count > room:
        raise fault("spec.ranges.nodesIPv6", f"{ranges.nodes_ipv6} has room for {room} nodes, {count} are asked for")
    room = 1 << (POD_PREFIX_IPV6 - ranges.pods_ipv6.prefixlen)
    if count > room:
        text = f"{ranges.pods_ipv6} has room for {room} nodes of a /{POD_PREFIX_IPV6} each, {count} are asked for"
        raise fault("spec.ranges.podsIPv6", text)
