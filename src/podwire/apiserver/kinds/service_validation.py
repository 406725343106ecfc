"""What makes a Service right.

Here: rules on the plain tree, all errors at once. Not here: whether an address or port is free (``allocation_services.py``).

Source: https://kubernetes.io/docs/concepts/services-networking/service/ and the API's own messages
"""

from __future__ import annotations

from ipaddress import ip_address

from podwire.apiserver.allocation_services import has_cluster_ip, has_health_check_port, is_headless
from podwire.apiserver.kind import Tree
from podwire.apiserver.kinds.service_defaults import is_external
from podwire.apiserver.validation import (
    IMMUTABLE,
    FieldError,
    Path,
    dns_subdomain,
    duplicate,
    forbidden,
    invalid,
    label_errors,
    required,
    unsupported,
)
from podwire.apiserver.validation_values import (
    address_errors,
    label_name_errors,
    port_errors,
    port_or_name_errors,
    qualified_errors,
    range_errors,
    special_errors,
)

_SPEC = Path("spec")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_LONGEST_AFFINITY = 86400
_TOPOLOGY_HINTS, _TOPOLOGY_MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_DOUBLE = "must be 'RequireDualStack' or 'PreferDualStack' "
_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")


def validate_service(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of a Service, in the order in which the API tells them."""
    spec, annotations = tree.get("spec", {}), tree["metadata"].get("annotations", {})
    errors = _changes(spec, old["spec"]) if old is not None and "spec" in old else []
    errors += _topology(annotations)
    if not spec.get("ports") and not is_headless(spec) and spec.get("type") != "ExternalName":
        errors.append(required(_SPEC / "ports"))
    errors += _external_name(spec) + _ports(spec)
    if selector := spec.get("selector"):
        errors += label_errors(selector, _SPEC / "selector")
    errors += _affinity(spec) + _cluster_ips(spec) + _families(spec) + _external_ips(spec)
    if spec.get("type") not in _TYPES:
        errors.append(unsupported(_SPEC / "type", spec["type"], _TYPES) if spec.get("type") else required(_SPEC / "type"))
    errors += _node_ports(spec) + _same_ports(spec)
    return errors + _source_ranges(spec, annotations) + _load_balancer(spec) + _traffic(spec)


def _topology(annotations: Tree) -> list[FieldError]:
    """Both names of one annotation must say the same."""
    if not {_TOPOLOGY_HINTS, _TOPOLOGY_MODE} <= annotations.keys() or annotations[_TOPOLOGY_HINTS] == annotations[_TOPOLOGY_MODE]:
        return []
    path = Path("metadata") / "annotations" % _TOPOLOGY_MODE
    return [invalid(path, annotations[_TOPOLOGY_MODE], f"must match annotations[{_TOPOLOGY_HINTS}] when both are specified")]


def validate_service_status(tree: Tree, _old: Tree | None) -> list[FieldError]:
    """Give every error of a Service's status."""
    errors: list[FieldError] = []
    ingresses = tree.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    path = Path("status") / "loadBalancer" / "ingress"
    if ingresses and tree.get("spec", {}).get("type") != "LoadBalancer":
        errors.append(forbidden(path, 'may only be used when `spec.type` is "LoadBalancer"'))
    for index, ingress in enumerate(ingresses):
        if ip := ingress.get("ip"):
            errors += address_errors(ip, path @ index / "ip")
            if ingress.get("ipMode") not in ("VIP", "Proxy"):
                errors.append(unsupported(path @ index / "ipMode", ingress.get("ipMode", ""), ("Proxy", "VIP")))
        elif ingress.get("ipMode"):
            errors.append(forbidden(path @ index / "ipMode", "may not be specified when `ip` is not set"))
        if host := ingress.get("hostname"):
            errors += [invalid(path @ index / "hostname", host, text) for text in dns_subdomain(host)]
    return errors


# Ports -------------------------------------------------------------------------------------------------------------------


def _ports(spec: Tree) -> list[FieldError]:
    ports = spec.get("ports", ())
    names: set[str] = set()
    return [error for index, port in enumerate(ports) for error in _port(port, names, len(ports) > 1, _SPEC / "ports" @ index)]


def _node_ports(spec: Tree) -> list[FieldError]:
    """Ports of nodes: none for a plain Service, each for one port of the Service."""
    errors: list[FieldError] = []
    seen: set[tuple[str, int]] = set()
    numbered = [(_SPEC / "ports" @ index / "nodePort", port) for index, port in enumerate(spec.get("ports", ())) if port.get("nodePort")]
    if spec.get("type") == "ClusterIP":
        errors += [forbidden(path, "may not be used when `type` is 'ClusterIP'") for path, _ in numbered]
    for path, port in numbered:
        key = (port.get("protocol", ""), port["nodePort"])
        errors += [duplicate(path, key[1])] if key in seen else []
        seen.add(key)
    return errors


def _same_ports(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, int]] = set()
    for index, port in enumerate(spec.get("ports", ())):
        key = (port.get("protocol", ""), port.get("port", 0))
        if key in seen:
            shown = {"Name": "", "Protocol": key[0], "AppProtocol": None, "Port": key[1], "TargetPort": 0, "NodePort": 0}
            errors.append(duplicate(_SPEC / "ports" @ index, shown))
        seen.add(key)
    return errors


def _port(port: Tree, names: set[str], named: bool, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    name = port.get("name", "")
    if name:
        errors += label_name_errors(name, path / "name")
        if name in names:
            errors.append(duplicate(path / "name", name))
        names.add(name)
    elif named:
        errors.append(required(path / "name"))
    errors += port_errors(port.get("port", 0), path / "port")
    protocol = port.get("protocol", "")
    if not protocol:
        errors.append(required(path / "protocol"))
    elif protocol not in _PROTOCOLS:
        errors.append(unsupported(path / "protocol", protocol, _PROTOCOLS))
    target = port.get("targetPort", 0)
    errors += port_or_name_errors(target, path / "targetPort")
    if application := port.get("appProtocol"):
        errors += qualified_errors(application, path / "appProtocol")
    return errors


# Addresses -----------------------------------------------------------------------------------------------------------------


def _cluster_ips(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    addresses = spec.get("clusterIPs", [])
    path = _SPEC / "clusterIPs"
    if not has_cluster_ip(spec):
        keys = [key for key in ("clusterIPs", "ipFamilies", "ipFamilyPolicy") if spec.get(key)]
        return [forbidden(_SPEC / key, "may not be set for ExternalName services") for key in keys]
    if addresses and addresses[0] != spec.get("clusterIP"):
        errors.append(invalid(path, addresses, "first value must match `clusterIP`"))
    if is_headless(spec):
        if spec.get("type") in ("NodePort", "LoadBalancer"):
            errors.append(invalid(path @ 0, "None", f"may not be set to 'None' for {spec['type']} services"))
        if len(addresses) > 1:
            errors.append(invalid(path, addresses, "'None' must be the first and only value"))
        return errors
    for index, address in enumerate(addresses):
        errors += address_errors(address, path @ index)
    if len(addresses) > 2:
        errors.append(invalid(path, addresses, "may only hold up to 2 values"))
    elif len(addresses) == 2 and not errors and ip_address(addresses[0]).version == ip_address(addresses[1]).version:
        errors.append(invalid(path, addresses, "may specify no more than one IP for each IP family"))
    return errors


def _families(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    if not has_cluster_ip(spec):
        return errors
    families, path = spec.get("ipFamilies", []), _SPEC / "ipFamilies"
    for index, family in enumerate(families):
        if family not in ("IPv4", "IPv6"):
            errors.append(unsupported(path @ index, family, ("IPv4", "IPv6")))
        elif family in families[:index]:
            errors.append(duplicate(path @ index, family))
    policy = spec.get("ipFamilyPolicy")
    if policy and policy not in _POLICIES:
        errors.append(unsupported(_SPEC / "ipFamilyPolicy", policy, _POLICIES))
    if policy == "SingleStack":
        if len(families) > 1:
            errors.append(invalid(_SPEC / "ipFamilyPolicy", policy, _DOUBLE + "when multiple IP families are specified"))
        if len(spec.get("clusterIPs", ())) > 1:
            errors.append(invalid(_SPEC / "ipFamilyPolicy", policy, _DOUBLE + "when multiple cluster IPs are specified"))
    for index, (address, family) in enumerate(zip(spec.get("clusterIPs", ()), families, strict=False)):
        if address != "None" and not address_errors(address, path) and f"IPv{ip_address(address).version}" != family:
            errors.append(
                invalid(_SPEC / "clusterIPs" @ index, address, f"expected an {family} value as indicated by `ipFamilies[{index}]`")
            )
    return errors


def _external_name(spec: Tree) -> list[FieldError]:
    name, path = spec.get("externalName", ""), _SPEC / "externalName"
    if spec.get("type") != "ExternalName":
        return []
    return [invalid(path, name, text) for text in dns_subdomain(name.removesuffix("."))] if name.removesuffix(".") else [required(path)]


def _external_ips(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, address in enumerate(spec.get("externalIPs", ())):
        path = _SPEC / "externalIPs" @ index
        errors += address_errors(address, path) or special_errors(address, path)
    return errors


# Traffic -------------------------------------------------------------------------------------------------------------------


def _affinity(spec: Tree) -> list[FieldError]:
    kind, path = spec.get("sessionAffinity", ""), _SPEC / "sessionAffinity"
    if not kind:
        return [required(path)]
    if kind not in ("ClientIP", "None"):
        return [unsupported(path, kind, ("ClientIP", "None"))]
    config = spec.get("sessionAffinityConfig")
    if kind == "None":
        text = "must not be set when session affinity is None"
        return [] if config is None else [forbidden(_SPEC / "sessionAffinityConfig", text)]
    seconds = (config or {}).get("clientIP", {}).get("timeoutSeconds")
    where = _SPEC / "sessionAffinityConfig" / "clientIP" / "timeoutSeconds"
    if seconds is None:
        return [required(where, "must be set when session affinity is ClientIP")]
    if not 0 < seconds <= _LONGEST_AFFINITY:
        return [invalid(where, seconds, f"must be greater than 0 and less than {_LONGEST_AFFINITY}")]
    return []


def _traffic(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    outer, inner = spec.get("externalTrafficPolicy"), spec.get("internalTrafficPolicy")
    path = _SPEC / "externalTrafficPolicy"
    if outer is not None and not is_external(spec):
        errors.append(invalid(path, outer, "may only be set for externally-accessible services"))
    elif is_external(spec) and outer not in ("Cluster", "Local"):
        errors.append(unsupported(path, outer, ("Cluster", "Local")) if outer else required(path))
    if inner is not None and inner not in ("Cluster", "Local"):
        errors.append(unsupported(_SPEC / "internalTrafficPolicy", inner, ("Cluster", "Local")))
    spread = spec.get("trafficDistribution")
    if spread is not None and spread not in ("PreferClose", "PreferSameNode", "PreferSameZone"):
        errors.append(unsupported(_SPEC / "trafficDistribution", spread, ("PreferClose", "PreferSameNode", "PreferSameZone")))
    check = spec.get("healthCheckNodePort", 0)
    if has_health_check_port(spec):
        if not check:
            errors.append(required(_SPEC / "healthCheckNodePort"))
        else:
            errors += port_errors(check, _SPEC / "healthCheckNodePort")
    elif check:
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(invalid(_SPEC / "healthCheckNodePort", check, text))
    return errors


def _source_ranges(spec: Tree, annotations: Tree) -> list[FieldError]:
    """Check who may come in: the field or, where it is empty, the annotation. The API's messages spell the field with a capital."""
    ranges, path = spec.get("loadBalancerSourceRanges", ()), _SPEC / "LoadBalancerSourceRanges"
    places = [(text, path @ index) for index, text in enumerate(ranges)]
    if not ranges:
        if _SOURCE_RANGES not in annotations:
            return []
        path = Path("metadata") / "annotations" % _SOURCE_RANGES
        places = [(text, path) for text in annotations[_SOURCE_RANGES].split(",")] if annotations[_SOURCE_RANGES].strip() else []
    balanced = spec.get("type") == "LoadBalancer"
    errors = [] if balanced else [forbidden(path, "may only be used when `type` is 'LoadBalancer'")]
    return errors + [error for text, where in places for error in range_errors(text.strip(), where)]


def _load_balancer(spec: Tree) -> list[FieldError]:
    if spec.get("type") != "LoadBalancer":
        keys = [key for key in ("allocateLoadBalancerNodePorts", "loadBalancerClass") if spec.get(key) is not None]
        return [forbidden(_SPEC / key, "may only be used when `type` is 'LoadBalancer'") for key in keys]
    name = spec.get("loadBalancerClass")
    return qualified_errors(name, _SPEC / "loadBalancerClass") if name else []


# Changes -------------------------------------------------------------------------------------------------------------------


def _changes(spec: Tree, before: Tree) -> list[FieldError]:
    """What may not change while a Service lives."""
    errors: list[FieldError] = []
    if has_cluster_ip(spec) and has_cluster_ip(before):
        now, then = spec.get("clusterIPs", []), before.get("clusterIPs", [])
        if then and (not now or now[0] != then[0]):
            errors.append(invalid(_SPEC / "clusterIPs" @ 0, now, "may not change once set"))
        families, former = spec.get("ipFamilies", []), before.get("ipFamilies", [])
        if former and families and families[0] != former[0] and not is_headless(spec):
            errors.append(invalid(_SPEC / "ipFamilies" @ 0, families, "may not change once set"))
        if len(now) > 1 and len(then) > 1 and now[1] != then[1]:
            errors.append(invalid(_SPEC / "clusterIPs" @ 1, now, "may not change once set"))
    if spec.get("type") == before.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") != before.get("loadBalancerClass"):
        errors.append(invalid(_SPEC / "loadBalancerClass", spec.get("loadBalancerClass"), "may not change once set"))
    check = spec.get("healthCheckNodePort", 0)
    if has_health_check_port(spec) and has_health_check_port(before) and check != before.get("healthCheckNodePort", 0):
        errors.append(forbidden(_SPEC / "healthCheckNodePort", IMMUTABLE))
    return errors
