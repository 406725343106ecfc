"""Rows of the group networking.k8s.io, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/ and .../policy-resources/network-policy-v1/
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any

from podwire.apiserver.cells import NONE, age, selector
from podwire.apiserver.kind import AGE, NAME, STATUS, Column, Kind, Tree
from podwire.apiserver.kinds import service_cidr
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, dns_subdomain, forbidden, invalid, required
from podwire.apiserver.validation_values import one_of, port_errors, port_or_name_errors, range_errors, selector_errors

_GROUP, _VERSION, _DEFINITION = "networking.k8s.io", "v1", "io.k8s.api.networking.v1."
_SPEC = Path("spec")


def _cells(tree: Tree, now: datetime, *values: Any) -> list[Any]:
    return [tree["metadata"]["name"], *values, age(tree["metadata"].get("creationTimestamp"), now)]


# Ingresses -----------------------------------------------------------------------------------------------------------------


def _ingress_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    hosts = [rule.get("host") or "*" for rule in spec.get("rules", ())] or ["*"]
    shown = ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "")
    given = tree.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    addresses = ",".join(one.get("ip") or one.get("hostname", "") for one in given)
    return _cells(tree, now, spec.get("ingressClassName") or NONE, shown, addresses, "80, 443" if spec.get("tls") else "80")


def _validate_ingress(tree: Tree, _old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors: list[FieldError] = []
    if not spec.get("rules") and "defaultBackend" not in spec:
        errors.append(invalid(_SPEC, spec.get("rules"), "either `defaultBackend` or `rules` must be specified"))
    if "defaultBackend" in spec:
        errors += _backend(spec["defaultBackend"], _SPEC / "defaultBackend")
    for index, rule in enumerate(spec.get("rules", ())):
        path = _SPEC / "rules" @ index
        if host := rule.get("host"):
            errors += [invalid(path / "host", host, text) for text in dns_subdomain(host.removeprefix("*."))]
        if "http" in rule:
            paths = rule["http"].get("paths", ())
            if not paths:
                errors.append(required(path / "http" / "paths"))
            for place, one in enumerate(paths):
                errors += _path(one, path / "http" / "paths" @ place)
    if name := spec.get("ingressClassName"):
        errors += [invalid(_SPEC / "ingressClassName", name, text) for text in dns_subdomain(name)]
    return errors


def _path(one: Tree, path: Path) -> list[FieldError]:
    kind, text = one.get("pathType", ""), one.get("path", "")
    errors = one_of(kind, ("Exact", "ImplementationSpecific", "Prefix"), path / "pathType")
    if not kind:
        errors = [required(path / "pathType", "pathType must be specified")]
    if kind in ("Exact", "Prefix") and not text.startswith("/"):
        errors.append(invalid(path / "path", text, "must be an absolute path"))
    elif kind in ("Exact", "Prefix"):
        bad = [part for part in ("//", "/./", "/../", "%2f", "%2F") if part in text]
        errors += [invalid(path / "path", text, f"must not contain '{part}'") for part in bad]
    return errors + _backend(one.get("backend", {}), path / "backend")


def _backend(backend: Tree, path: Path) -> list[FieldError]:
    service = backend.get("service")
    if (service is None) == ("resource" not in backend):
        if service is None:
            return [required(path, "cannot specify neither a service nor a resource backend")]
        return [invalid(path, "", "cannot set both resource and service backends")]
    if service is None:
        return []
    errors = [] if service.get("name") else [required(path / "service" / "name")]
    port = service.get("port", {})
    if port.get("name") and port.get("number"):
        errors.append(invalid(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        errors += port_or_name_errors(port["name"], path / "service" / "port" / "name")
    elif port.get("number"):
        errors += port_errors(port["number"], path / "service" / "port" / "number")
    else:
        errors.append(required(path, "port name or number is required"))
    return errors


# Classes ---------------------------------------------------------------------------------------------------------------------


def _class_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    about = spec.get("parameters", {})
    parts = (about.get("kind", "") + ("." + about["apiGroup"] if about.get("apiGroup") else ""), about.get("name", ""))
    return _cells(tree, now, spec.get("controller", ""), "/".join(parts) if about else NONE)


def _default_class(tree: Tree) -> None:
    about = tree.setdefault("spec", {}).get("parameters")
    if about is not None and not about.get("scope"):
        about["scope"] = "Cluster"


def _validate_class(tree: Tree, old: Tree | None) -> list[FieldError]:
    controller, path = tree.get("spec", {}).get("controller", ""), _SPEC / "controller"
    if not controller:
        return [required(path)]
    if old is not None and controller != old.get("spec", {}).get("controller"):
        return [invalid(path, controller, IMMUTABLE)]
    return [] if "/" in controller else [invalid(path, controller, 'must be a domain-prefixed path (such as "acme.io/foo")')]


# Network policies --------------------------------------------------------------------------------------------------------------


def _policy_row(tree: Tree, now: datetime) -> list[Any]:
    return _cells(tree, now, selector(tree.get("spec", {}).get("podSelector")) or NONE)


def _default_policy(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    for direction in ("ingress", "egress"):
        for rule in spec.get(direction, ()):
            for port in rule.get("ports", ()):
                if not port.get("protocol"):
                    port["protocol"] = "TCP"
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def _validate_policy(tree: Tree, _old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = selector_errors(spec.get("podSelector", {}), _SPEC / "podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction, ())):
            path = _SPEC / direction @ index
            for place, port in enumerate(rule.get("ports", ())):
                errors += _policy_port(port, path / "ports" @ place)
            for place, peer in enumerate(rule.get(side, ())):
                errors += _peer(peer, path / side @ place)
    for index, word in enumerate(spec.get("policyTypes", ())):
        errors += one_of(word, ("Egress", "Ingress"), _SPEC / "policyTypes" @ index)
    return errors


def _policy_port(port: Tree, path: Path) -> list[FieldError]:
    errors = one_of(port.get("protocol", ""), ("SCTP", "TCP", "UDP"), path / "protocol")
    first, last = port.get("port"), port.get("endPort")
    if first is not None:
        errors += port_or_name_errors(first, path / "port")
    if last is None:
        return errors
    if first is None:
        return [*errors, required(path / "port", "may not be empty when `endPort` is specified")]
    if isinstance(first, str):
        return [*errors, invalid(path / "endPort", last, "may not be specified when `port` is non-numeric")]
    if last < first:
        return [*errors, invalid(path / "endPort", last, "must be greater than or equal to `port`")]
    return errors + port_errors(last, path / "endPort")


def _peer(peer: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if not peer:
        return [required(path, "must specify a peer")]
    for key in ("podSelector", "namespaceSelector"):
        if key in peer:
            errors += selector_errors(peer[key], path / key)
    if "ipBlock" in peer:
        if len(peer) > 1:
            errors.append(forbidden(path, "may not specify both ipBlock and another peer"))
        errors += _block(peer["ipBlock"], path / "ipBlock")
    return errors


def _block(block: Tree, path: Path) -> list[FieldError]:
    text = block.get("cidr", "")
    errors = range_errors(text, path / "cidr") if text else [required(path / "cidr")]
    for index, other in enumerate(block.get("except", ())):
        where = path / "except" @ index
        found = range_errors(other, where)
        errors += found
        if not found and text and not range_errors(text, path):
            outer, inner = ip_network(text, strict=False), ip_network(other, strict=False)
            inside = outer.version == inner.version and outer.prefixlen < inner.prefixlen and inner.network_address in outer
            if not inside:
                errors.append(invalid(where, other, "must be a strict subset of `cidr`"))
    return errors


# Service ranges ------------------------------------------------------------------------------------------------------------------


def _range_row(tree: Tree, now: datetime) -> list[Any]:
    return _cells(tree, now, ",".join(tree.get("spec", {}).get("cidrs", ())))


def _address_row(tree: Tree, now: datetime) -> list[Any]:
    about = tree.get("spec", {}).get("parentRef", {})
    resource = about.get("resource", "") + ("." + about["group"] if about.get("group") else "")
    return _cells(tree, now, "/".join(part for part in (resource, about.get("namespace"), about.get("name")) if part))


def _address_name(name: str, _prefix: bool) -> list[str]:
    try:
        return [] if str(ip_address(name)) == name else ["must be an IP address in canonical form"]
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]


def _validate_address(tree: Tree, _old: Tree | None) -> list[FieldError]:
    about, path = tree.get("spec", {}).get("parentRef"), _SPEC / "parentRef"
    if about is None:
        return [required(path)]
    return [required(path / key) for key in ("resource", "name") if not about.get(key)]


INGRESS = Kind(
    _GROUP,
    _VERSION,
    "ingresses",
    "Ingress",
    True,
    _DEFINITION + "Ingress",
    short_names=("ing",),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column("Class", description="Who makes it work."),
        Column("Hosts", description="The hosts of its rules."),
        Column("Address", description="Where requests arrive."),
        Column("Ports", description="The ports of its entrance."),
        AGE,
    ),
    row=_ingress_row,
    validate=_validate_ingress,
)
INGRESS_CLASS = Kind(
    _GROUP,
    _VERSION,
    "ingressclasses",
    "IngressClass",
    False,
    _DEFINITION + "IngressClass",
    columns=(NAME, Column("Controller", description="Who serves it."), Column("Parameters", description="What configures it."), AGE),
    row=_class_row,
    default=_default_class,
    validate=_validate_class,
)


def _policy_warnings(_tree: Tree, _old: Tree | None) -> list[str]:
    """A policy that lets everything through must not look like one that does not."""
    return ["NetworkPolicies are stored, and not enforced by this version of podwire: every packet passes"]


NETWORK_POLICY = Kind(
    _GROUP,
    _VERSION,
    "networkpolicies",
    "NetworkPolicy",
    True,
    _DEFINITION + "NetworkPolicy",
    short_names=("netpol",),
    columns=(NAME, Column("Pod-Selector", description="The Pods that it concerns."), AGE),
    row=_policy_row,
    default=_default_policy,
    validate=_validate_policy,
    warnings=_policy_warnings,
)
SERVICE_CIDR = Kind(
    _GROUP,
    _VERSION,
    "servicecidrs",
    "ServiceCIDR",
    False,
    _DEFINITION + "ServiceCIDR",
    subresources=(STATUS,),
    columns=(NAME, Column("CIDRs", description="The ranges."), AGE),
    row=_range_row,
    prepare_create=service_cidr.prepare_new,
    prepare_update=service_cidr.prepare_changed,
    validate=service_cidr.validate,
)
IP_ADDRESS = Kind(
    _GROUP,
    _VERSION,
    "ipaddresses",
    "IPAddress",
    False,
    _DEFINITION + "IPAddress",
    short_names=("ip",),
    columns=(NAME, Column("ParentRef", description="Who has the address."), AGE),
    row=_address_row,
    name_errors=_address_name,
    validate=_validate_address,
)

KINDS = (INGRESS, INGRESS_CLASS, NETWORK_POLICY, SERVICE_CIDR, IP_ADDRESS)
