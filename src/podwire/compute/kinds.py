"""Rows of the cloud's Compute API, group compute.podwire.dev, version v1: served by the same machinery as Kubernetes' kinds.

Source: https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import NONE, age
from podwire.apiserver.kind import AGE, NAME, Column, Kind, Tree, Use
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, dns_1035_label, invalid, required
from podwire.apiserver.validation_values import address_errors, one_of, port_errors, range_errors
from podwire.compute.schemas import GROUP, PREFIX, VERSION

_SPEC = Path("spec")
_CATEGORIES = ("compute",)


def _cells(tree: Tree, now: datetime, *values: Any) -> list[Any]:
    return [tree["metadata"]["name"], *values, age(tree["metadata"].get("creationTimestamp"), now)]


def _fill(tree: Tree, key: str, value: str) -> None:
    spec = tree.setdefault("spec", {})
    if not spec.get(key):
        spec[key] = value


def _fixed(tree: Tree, old: Tree | None, *keys: str) -> list[FieldError]:
    """What names a resource of the cloud cannot change: it is deleted and made anew."""
    if old is None:
        return []
    spec, before = tree.get("spec", {}), old.get("spec", {})
    return [invalid(_SPEC / key, spec.get(key), IMMUTABLE) for key in keys if spec.get(key) != before.get(key)]


# Addresses -----------------------------------------------------------------------------------------------------------------


def _address_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    return _cells(tree, now, spec.get("address") or NONE, spec.get("addressType", ""))


def _default_address(tree: Tree) -> None:
    _fill(tree, "addressType", "EXTERNAL")


def _keep_address(tree: Tree, old: Tree) -> None:
    """A writer who does not speak of the address that was given keeps it."""
    if not tree["spec"].get("address") and old.get("spec", {}).get("address"):
        tree["spec"]["address"] = old["spec"]["address"]


def _validate_address(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = address_errors(spec["address"], _SPEC / "address") if spec.get("address") else []
    errors += one_of(spec.get("addressType", ""), ("EXTERNAL",), _SPEC / "addressType")
    return errors + _fixed(tree, old, "address", "addressType")


def _leads_there(rule: Tree, address: Tree) -> bool:
    """Whether packets to an address go by this rule."""
    return bool(rule["spec"]["ipAddress"] == address["spec"].get("address"))


# Forwarding rules --------------------------------------------------------------------------------------------------------------


def _rule_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    ports = ",".join(str(port) for port in spec.get("ports", ())) or "all"
    return _cells(tree, now, spec.get("ipAddress") or NONE, spec.get("ipProtocol", ""), ports, spec.get("target") or NONE)


def _default_rule(tree: Tree) -> None:
    _fill(tree, "ipProtocol", "TCP")
    _fill(tree, "loadBalancingScheme", "EXTERNAL")


def _validate_rule(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    address = spec.get("ipAddress", "")
    errors = address_errors(address, _SPEC / "ipAddress") if address else [required(_SPEC / "ipAddress")]
    errors += one_of(spec.get("ipProtocol", ""), ("TCP", "UDP"), _SPEC / "ipProtocol")
    errors += one_of(spec.get("loadBalancingScheme", ""), ("EXTERNAL",), _SPEC / "loadBalancingScheme")
    for index, port in enumerate(spec.get("ports", ())):
        errors += port_errors(port, _SPEC / "ports" @ index)
    if not spec.get("target"):
        errors.append(required(_SPEC / "target"))
    return errors + _fixed(tree, old, "ipAddress", "ipProtocol", "loadBalancingScheme")


# Target pools --------------------------------------------------------------------------------------------------------------------


def _pool_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    return _cells(tree, now, len(spec.get("instances", ())), spec.get("sessionAffinity", ""))


def _default_pool(tree: Tree) -> None:
    _fill(tree, "sessionAffinity", "NONE")


def _validate_pool(tree: Tree, _old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = one_of(spec.get("sessionAffinity", ""), ("CLIENT_IP", "CLIENT_IP_PROTO", "NONE"), _SPEC / "sessionAffinity")
    for index, name in enumerate(spec.get("instances", ())):
        errors += [invalid(_SPEC / "instances" @ index, name, text) for text in dns_1035_label(name)]
    return errors


# Instances -------------------------------------------------------------------------------------------------------------------------


def _instance_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    interfaces = spec.get("networkInterfaces", ())
    ranges = ",".join(text for one in interfaces for text in one.get("aliasIPRanges", ()))
    address = interfaces[0].get("networkIP") if interfaces else ""
    return _cells(tree, now, spec.get("zone") or NONE, address or NONE, ranges or NONE)


def _validate_instance(tree: Tree, _old: Tree | None) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, interface in enumerate(tree.get("spec", {}).get("networkInterfaces", ())):
        path = _SPEC / "networkInterfaces" @ index
        address = interface.get("networkIP", "")
        errors += address_errors(address, path / "networkIP") if address else [required(path / "networkIP")]
        if second := interface.get("ipv6Address", ""):
            errors += address_errors(second, path / "ipv6Address")
        for place, text in enumerate(interface.get("aliasIPRanges", ())):
            errors += range_errors(text, path / "aliasIPRanges" @ place)
    return errors


ADDRESS = Kind(
    GROUP,
    VERSION,
    "addresses",
    "Address",
    False,
    PREFIX + "Address",
    short_names=("addr",),
    categories=_CATEGORIES,
    columns=(NAME, Column("Address", description="The address."), Column("Type", description="EXTERNAL."), AGE),
    row=_address_row,
    name_errors=dns_1035_label,
    default=_default_address,
    prepare_update=_keep_address,
    kept_by=Use("forwardingrules", _leads_there),
    validate=_validate_address,
)
FORWARDING_RULE = Kind(
    GROUP,
    VERSION,
    "forwardingrules",
    "ForwardingRule",
    False,
    PREFIX + "ForwardingRule",
    short_names=("fr",),
    categories=_CATEGORIES,
    columns=(
        NAME,
        Column("IP-Address", description="Where packets arrive."),
        Column("Protocol", description="TCP or UDP."),
        Column("Ports", description="The ports, or all."),
        Column("Target", description="The target pool."),
        AGE,
    ),
    row=_rule_row,
    name_errors=dns_1035_label,
    default=_default_rule,
    validate=_validate_rule,
)
TARGET_POOL = Kind(
    GROUP,
    VERSION,
    "targetpools",
    "TargetPool",
    False,
    PREFIX + "TargetPool",
    short_names=("tp",),
    categories=_CATEGORIES,
    columns=(
        NAME,
        Column("Instances", "integer", description="The number of instances."),
        Column("Session-Affinity", description="What keeps a client with one instance."),
        AGE,
    ),
    row=_pool_row,
    name_errors=dns_1035_label,
    default=_default_pool,
    validate=_validate_pool,
)
INSTANCE = Kind(
    GROUP,
    VERSION,
    "instances",
    "Instance",
    False,
    PREFIX + "Instance",
    short_names=("vm",),
    categories=_CATEGORIES,
    columns=(
        NAME,
        Column("Zone", description="Where the machine is."),
        Column("Network-IP", description="Its address in the VPC network."),
        Column("Alias-IP-Ranges", description="The ranges routed to it."),
        AGE,
    ),
    row=_instance_row,
    name_errors=dns_1035_label,
    validate=_validate_instance,
)

KINDS = (ADDRESS, FORWARDING_RULE, TARGET_POOL, INSTANCE)
