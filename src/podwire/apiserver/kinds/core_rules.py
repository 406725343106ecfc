"""Defaults, preparation and rules of the small kinds of the core group: namespaces, nodes, configuration, secrets, accounts, events.

Here: plain trees, changed in place or looked at. Not here: Pods and Services (files of their own), columns (``core_cells.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

import base64
from ipaddress import ip_network

from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, data_key, dns_label, forbidden, invalid, required, too_long
from podwire.apiserver.validation_values import address_errors, one_of, port_errors, qualified_errors, range_errors, special_errors

_SPEC = Path("spec")
_LARGEST = 1024 * 1024  # bytes of the data of one ConfigMap or Secret
_PROTOCOLS = ("SCTP", "TCP", "UDP")

# Namespaces ----------------------------------------------------------------------------------------------------------------


def default_namespace(tree: Tree) -> None:
    """Every namespace carries its name as a label, so that selectors can ask for it."""
    if name := tree["metadata"].get("name"):
        tree["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name


def prepare_new_namespace(tree: Tree) -> None:
    finalizers = tree.setdefault("spec", {}).setdefault("finalizers", [])
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    tree["status"] = {"phase": "Active"}


def prepare_changed_namespace(tree: Tree, old: Tree) -> None:
    """A namespace's finalizers change through their own path only."""
    if "spec" in old:
        tree["spec"] = old["spec"]
    else:
        tree.pop("spec", None)


# Nodes -----------------------------------------------------------------------------------------------------------------------


def default_node(tree: Tree) -> None:
    """What nobody has set aside can be given to Pods."""
    status = tree.get("status", {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])
    spec = tree.setdefault("spec", {})
    single, several = spec.get("podCIDR"), spec.get("podCIDRs")
    if single and not several:
        spec["podCIDRs"] = [single]
    elif several and not single:
        spec["podCIDR"] = several[0]


def validate_node(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec, errors = tree.get("spec", {}), list[FieldError]()
    ranges, path = spec.get("podCIDRs", []), _SPEC / "podCIDRs"
    for index, text in enumerate(ranges):
        errors += range_errors(text, path @ index)
    if ranges and ranges[0] != spec.get("podCIDR"):
        errors.append(invalid(path @ 0, ranges, "node.spec.podCIDR must match the first of node.spec.podCIDRs"))
    if len(ranges) > 2 or (len(ranges) == 2 and not errors and len({ip_network(text, strict=False).version for text in ranges}) < 2):
        errors.append(invalid(path, ranges, "may specify no more than one CIDR for each IP family"))
    for index, taint in enumerate(spec.get("taints", ())):
        where = _SPEC / "taints" @ index
        errors += qualified_errors(taint.get("key", ""), where / "key")
        errors += one_of(taint.get("effect", ""), ("NoExecute", "NoSchedule", "PreferNoSchedule"), where / "effect")
    if old is not None:
        before = old.get("spec", {})
        if before.get("podCIDRs") and ranges != before["podCIDRs"]:
            errors.append(forbidden(path, 'node updates may not change podCIDR except from "" to valid'))
        if before.get("providerID") and spec.get("providerID") != before["providerID"]:
            errors.append(forbidden(_SPEC / "providerID", 'node updates may not change providerID except from "" to valid'))
    return errors


# ConfigMaps and Secrets --------------------------------------------------------------------------------------------------------


def validate_config_map(tree: Tree, old: Tree | None) -> list[FieldError]:
    data, binary = tree.get("data", {}), tree.get("binaryData", {})
    errors = [invalid(Path("data") % key, key, text) for key in data for text in data_key(key)]
    errors += [invalid(Path("binaryData") % key, key, text) for key in binary for text in data_key(key)]
    errors += [invalid(Path("data") % key, key, f"duplicate of key present in {Path('binaryData')}") for key in data if key in binary]
    size = sum(len(value.encode()) for value in data.values()) + sum(len(value) * 3 // 4 for value in binary.values())
    if size > _LARGEST:
        errors.append(too_long(Path("[]"), _LARGEST))
    return errors + _frozen(tree, old, ("data", "binaryData"))


def default_secret(tree: Tree) -> None:
    """Text that is written for convenience joins the data, encoded; it is never given back."""
    if texts := tree.pop("stringData", None):
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        tree["data"] = {**tree.get("data", {}), **encoded}
    if not tree.get("type"):
        tree["type"] = "Opaque"


_NEEDED_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}


def validate_secret(tree: Tree, old: Tree | None) -> list[FieldError]:
    data = tree.get("data", {})
    errors = [invalid(Path("data") % key, key, text) for key in data for text in data_key(key)]
    if sum(len(value) * 3 // 4 for value in data.values()) > _LARGEST:
        errors.append(too_long(Path("data"), _LARGEST))
    kind = tree.get("type", "")
    errors += [required(Path("data") % key) for key in _NEEDED_KEYS.get(kind, ()) if key not in data]
    if kind == "kubernetes.io/service-account-token":
        path = Path("metadata") / "annotations" % "kubernetes.io/service-account.name"
        if not tree["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name"):
            errors.append(required(path))
    if kind == "kubernetes.io/basic-auth" and not data.keys() & {"username", "password"}:
        errors += [required(Path("data") % "username"), required(Path("data") % "password")]
    if old is not None and kind != old.get("type"):
        errors.append(invalid(Path("type"), kind, IMMUTABLE))
    return errors + _frozen(tree, old, ("data",))


def _frozen(tree: Tree, old: Tree | None, keys: tuple[str, ...]) -> list[FieldError]:
    """What is marked immutable stays so, with all its data."""
    if old is None or not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    errors = [] if tree.get("immutable") else [forbidden(Path("immutable"), text)]
    return errors + [forbidden(Path(key), text) for key in keys if tree.get(key) != old.get(key)]


# Endpoints ---------------------------------------------------------------------------------------------------------------------


def default_endpoints(tree: Tree) -> None:
    for subset in tree.get("subsets", ()):
        for port in subset.get("ports", ()):
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def validate_endpoints(tree: Tree, _old: Tree | None) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, subset in enumerate(tree.get("subsets", ())):
        path = Path("subsets") @ index
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(path, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(key, ())):
                text, where = address.get("ip", ""), path / key @ place / "ip"
                errors += address_errors(text, where) or special_errors(text, where)
        ports = subset.get("ports", ())
        for place, port in enumerate(ports):
            where = path / "ports" @ place
            if port.get("name"):
                errors += [invalid(where / "name", port["name"], text) for text in dns_label(port["name"])]
            elif len(ports) > 1:
                errors.append(required(where / "name"))
            errors += port_errors(port.get("port", 0), where / "port")
            errors += one_of(port.get("protocol", ""), _PROTOCOLS, where / "protocol")
    return errors


# Events --------------------------------------------------------------------------------------------------------------------------


def default_event(tree: Tree) -> None:
    if not tree.get("type"):
        tree["type"] = "Normal"


def validate_event(tree: Tree, _old: Tree | None) -> list[FieldError]:
    namespace, about = tree["metadata"].get("namespace", ""), tree.get("involvedObject", {})
    other = about.get("namespace", "")
    if other and other != namespace:
        return [invalid(Path("involvedObject") / "namespace", other, "does not match event.namespace")]
    if not other and namespace not in ("", "default"):
        return [invalid(Path("involvedObject") / "namespace", other, "does not match event.namespace")]
    return []
