"""What a Service is given: families, cluster IPs, node ports, the port of its health check; and what becomes of them when it changes.

Here: the rules, on the plain tree. Not here: pools (``pools.py``), whether the Service is right (``kinds/service_validation.py``).

Source: https://kubernetes.io/docs/concepts/services-networking/service/ and .../dual-stack/
"""

from __future__ import annotations

from ipaddress import ip_address

from podwire.apiserver.kind import Tree
from podwire.apiserver.pools import Grant, Pools
from podwire.apiserver.validation import Path, internal, invalid
from podwire.ipam.addresses import FULL, Unavailable

_SPEC = Path("spec")
SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"


def has_cluster_ip(spec: Tree) -> bool:
    """Whether a Service of this type has a cluster IP (or is headless)."""
    return spec.get("type", "ClusterIP") in ("ClusterIP", "NodePort", "LoadBalancer")


def is_headless(spec: Tree) -> bool:
    return "None" in (spec.get("clusterIP"), *spec.get("clusterIPs", ()))


def has_node_ports(spec: Tree) -> bool:
    """Whether ports of this Service get a node port without asking."""
    return spec.get("type") == "NodePort" or (
        spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True) is not False
    )


def may_have_node_ports(spec: Tree) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def has_health_check_port(spec: Tree) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def new_service(pools: Pools, tree: Tree, grant: Grant) -> None:
    """Give a new Service what it needs. What is wrong goes to the grant's errors."""
    spec = tree.setdefault("spec", {})
    _one_list(spec)
    _families(pools, spec, None, grant)
    if not grant.errors:
        _cluster_ips(pools, spec, [], grant)
    if may_have_node_ports(spec):
        _node_ports(pools, spec, set(), grant)
    if has_health_check_port(spec):
        _health_check_port(pools, spec, 0, grant)


def change_service(pools: Pools, tree: Tree, old: Tree, grant: Grant) -> None:
    """Give a changed Service what it needs beyond what it has, and note what it gives back."""
    spec, before = tree.setdefault("spec", {}), old.get("spec", {})
    _follow_single(spec, before)
    _keep_given(spec, before)
    _one_list(spec)
    _families(pools, spec, before, grant)
    had = [] if is_headless(before) or not has_cluster_ip(before) else list(before.get("clusterIPs", ()))
    if not grant.errors:
        _cluster_ips(pools, spec, had, grant)
    had_ports = _held_node_ports(before)
    if may_have_node_ports(spec):
        _node_ports(pools, spec, had_ports, grant)
    kept = _held_node_ports(spec)
    had_check, check = before.get("healthCheckNodePort", 0), 0
    if has_health_check_port(spec):
        _health_check_port(pools, spec, had_check, grant)
        check = spec.get("healthCheckNodePort", 0)
    for port in sorted((had_ports | {had_check}) - kept - {0, check}):
        pools.release_node_port(port, grant)


def release_service(pools: Pools, tree: Tree, grant: Grant) -> None:
    """Give back all that a Service had."""
    spec = tree.get("spec", {})
    for address in spec.get("clusterIPs", ()):
        if address and address != "None":
            pools.release_service_address(address, grant)
    for port in sorted((_held_node_ports(spec) | {spec.get("healthCheckNodePort", 0)}) - {0}):
        pools.release_node_port(port, grant)


def _held_node_ports(spec: Tree) -> set[int]:
    return {port["nodePort"] for port in spec.get("ports", ()) if port.get("nodePort")}


# What the writer may leave out -------------------------------------------------------------------------------------------


def _follow_single(spec: Tree, before: Tree) -> None:
    """Who changes or clears ``clusterIP`` and leaves ``clusterIPs`` as it was means both."""
    single = spec.get("clusterIP", "")
    if single != before.get("clusterIP", "") and spec.get("clusterIPs") == before.get("clusterIPs"):
        spec["clusterIPs"] = [single] if single else []


def _keep_given(spec: Tree, before: Tree) -> None:
    """A writer who does not speak of what was given keeps it."""
    if has_cluster_ip(spec) and has_cluster_ip(before):
        if not spec.get("clusterIP") and not spec.get("clusterIPs"):
            for key in ("clusterIP", "clusterIPs"):
                if key in before:
                    spec[key] = list(before[key]) if key == "clusterIPs" else before[key]
        for key in ("ipFamilies", "ipFamilyPolicy"):
            if not spec.get(key) and before.get(key):
                spec[key] = before[key]
    if has_node_ports(spec) and may_have_node_ports(before):
        given = {(port.get("protocol", "TCP"), port.get("port")): port.get("nodePort", 0) for port in before.get("ports", ())}
        used = _held_node_ports(spec)
        for port in spec.get("ports", ()):
            number = given.get((port.get("protocol", "TCP"), port.get("port")), 0)
            if not port.get("nodePort") and number and number not in used:
                port["nodePort"] = number
    if has_health_check_port(spec) and has_health_check_port(before) and not spec.get("healthCheckNodePort"):
        spec["healthCheckNodePort"] = before.get("healthCheckNodePort", 0)


def _one_list(spec: Tree) -> None:
    """``clusterIP`` is the first of ``clusterIPs``; who writes one of them means both."""
    single, several = spec.get("clusterIP", ""), spec.get("clusterIPs") or []
    if single and not several:
        spec["clusterIPs"] = [single]
    elif several and not single:
        spec["clusterIP"] = several[0]


# Families ------------------------------------------------------------------------------------------------------------------


def _family_of(text: str) -> str:
    try:
        return f"IPv{ip_address(text).version}"
    except ValueError:
        return ""


def _families(pools: Pools, spec: Tree, before: Tree | None, grant: Grant) -> None:
    """Settle the families and the policy."""
    if not has_cluster_ip(spec):
        return
    families: list[str] = list(spec.get("ipFamilies") or [])
    for index, family in enumerate(families):
        if family in ("IPv4", "IPv6") and family not in pools.families and not (is_headless(spec) and not spec.get("selector")):
            grant.errors.append(invalid(_SPEC / "ipFamilies" @ index, family, "not configured on this cluster"))
    policy = spec.get("ipFamilyPolicy") or ""
    asked = [one for one in spec.get("clusterIPs", ()) if one != "None"]
    without_selector = is_headless(spec) and not spec.get("selector")
    if not policy:
        double = len(asked) > 1 or len(families) > 1 or (without_selector and before is None)
        policy = spec["ipFamilyPolicy"] = REQUIRE if double else SINGLE
    for text in asked:
        family = _family_of(text)
        if family and family not in families:
            families.append(family)
    if not families:
        families.append(pools.families[0])
    other = "IPv6" if families[0] == "IPv4" else "IPv4"
    if policy == REQUIRE and len(pools.families) < 2 and not without_selector:
        grant.errors.append(invalid(_SPEC / "ipFamilyPolicy", policy, "this cluster is not configured for dual-stack services"))
    elif len(families) == 1 and policy in (PREFER, REQUIRE) and (other in pools.families or (without_selector and policy == REQUIRE)):
        families.append(other)
    elif policy == SINGLE and len(families) > 1 and before is not None and before.get("ipFamilyPolicy") != SINGLE:
        del families[1:]
        if len(spec.get("clusterIPs", ())) > 1:
            spec["clusterIPs"] = spec["clusterIPs"][:1]
    spec["ipFamilies"] = families


# Addresses and ports -----------------------------------------------------------------------------------------------------


def _cluster_ips(pools: Pools, spec: Tree, had: list[str], grant: Grant) -> None:
    """Take what is missing, one address for each family; give back what is no longer among them."""
    if not has_cluster_ip(spec) or is_headless(spec):
        for address in had:
            pools.release_service_address(address, grant)
        return
    asked: list[str] = list(spec.get("clusterIPs") or [])
    given: list[str] = []
    for index, family in enumerate(spec["ipFamilies"]):
        wanted = asked[index] if index < len(asked) else ""
        if wanted and wanted in had:
            given.append(wanted)
        elif wanted and _family_of(wanted) not in pools.services:
            given.append(wanted)  # not an address, or of no family that the cluster has: validation says so
        else:
            try:
                given.append(pools.service_address(_family_of(wanted) or family, wanted, grant))
            except Unavailable as error:
                path = _SPEC / "clusterIPs"
                refusal = invalid(path, asked, f"failed to allocate IP {wanted}: {error}")
                grant.errors.append(refusal if wanted else internal(_SPEC / "clusterIP", f"failed to allocate a serviceIP: {error}"))
                return
    for address in had:
        if address not in given:
            pools.release_service_address(address, grant)
    spec["clusterIPs"] = given + asked[len(given) :]
    if not spec.get("clusterIP"):
        spec["clusterIP"] = given[0]


def _node_ports(pools: Pools, spec: Tree, had: set[int], grant: Grant) -> None:
    """Take the node ports asked for, and one for each port that needs one. Ports of one number and two protocols share theirs."""
    ports = spec.get("ports", ())
    shared: dict[int, int] = {}
    mine: set[tuple[int, str]] = set()
    for port in ports:
        if port.get("nodePort"):
            shared.setdefault(port.get("port", 0), port["nodePort"])
    for index, port in enumerate(ports):
        wanted = port.get("nodePort", 0)
        if not wanted and not has_node_ports(spec):
            continue
        protocol = port.get("protocol", "TCP")
        sibling = shared.get(port.get("port", 0), 0)
        if not wanted and sibling and (sibling, protocol) not in mine:
            wanted = sibling
        held = wanted and (wanted in had or any(number == wanted for number, _ in mine))
        path = _SPEC / "ports" @ index / "nodePort"
        try:
            port["nodePort"] = wanted if held else pools.node_port(wanted, grant)
        except Unavailable as error:
            text = f"failed to allocate a nodePort: {error}"
            grant.errors.append(invalid(path, wanted, str(error)) if str(error) != FULL else internal(path, text))
            continue
        shared.setdefault(port.get("port", 0), port["nodePort"])
        mine.add((port["nodePort"], protocol))


def _health_check_port(pools: Pools, spec: Tree, had: int, grant: Grant) -> None:
    wanted = spec.get("healthCheckNodePort", 0)
    if wanted and wanted == had:
        return
    try:
        spec["healthCheckNodePort"] = pools.node_port(wanted, grant)
    except Unavailable as error:
        asked = f"requested HealthCheck NodePort {wanted}" if wanted else "a HealthCheck NodePort"
        grant.errors.append(internal(_SPEC / "healthCheckNodePort", f"failed to allocate {asked}: {error}"))
