"""A ServiceCIDR: a range that Services get their addresses from, by whoever makes the object.

It is ready as soon as it is stored, and a finalizer keeps it for as long as a Service has an address that no other range holds.

Here: what the object says, on the plain tree. Not here: giving out (``service_ranges.py``), the end of an object (``range_objects.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-cidr-v1/ and
https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/
"""

from __future__ import annotations

from ipaddress import ip_interface, ip_network

from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, invalid, required
from podwire.apiserver.validation_values import range_errors

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
READY, TERMINATING = "Ready", "Terminating"
STILL_USED = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"

_CIDRS = Path("spec") / "cidrs"


def is_ready(tree: Tree) -> bool:
    """Whether addresses are given out of it. Without a word on that, they are."""
    if tree["metadata"].get("deletionTimestamp"):
        return False
    conditions = tree.get("status", {}).get("conditions", ())
    return all(one.get("status") == "True" for one in conditions if one.get("type") == READY)


def ready(now: str) -> Tree:
    """The condition of one that is given out of."""
    return {"type": READY, "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready", "lastTransitionTime": now}


def held_back(now: str) -> Tree:
    """The condition of one that is to go and cannot."""
    return {"type": READY, "status": "False", "reason": TERMINATING, "message": STILL_USED, "lastTransitionTime": now}


def prepare_new(tree: Tree) -> None:
    metadata = tree["metadata"]
    _hold(metadata)
    tree["status"] = {"conditions": [ready(metadata.get("creationTimestamp", ""))]}


def prepare_changed(tree: Tree, _old: Tree) -> None:
    if not tree["metadata"].get("deletionTimestamp"):
        _hold(tree["metadata"])


def _hold(metadata: Tree) -> None:
    finalizers = metadata.get("finalizers", [])
    if FINALIZER not in finalizers:
        metadata["finalizers"] = [*finalizers, FINALIZER]


def _range_errors(text: str, path: Path) -> list[FieldError]:
    errors = range_errors(text, path)
    if errors:
        return errors
    stated = ip_interface(text)
    if str(stated) != text:
        errors.append(invalid(path, text, f'must be in canonical form ("{stated}")'))
    if stated.ip != stated.network.network_address:
        errors.append(invalid(path, text, "must not have bits set beyond the prefix length"))
    return errors


def validate(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error."""
    ranges = tree.get("spec", {}).get("cidrs", [])
    if old is not None:
        return [] if ranges == old.get("spec", {}).get("cidrs", []) else [invalid(_CIDRS, ranges, IMMUTABLE)]
    if not ranges:
        return [required(_CIDRS, "at least one CIDR required")]
    if len(ranges) > 2:
        return [invalid(_CIDRS, {"cidrs": ranges}, "may only hold up to 2 values")]
    errors = [error for index, text in enumerate(ranges) for error in _range_errors(text, _CIDRS @ index)]
    if len(ranges) == 2 and not errors and ip_network(ranges[0]).version == ip_network(ranges[1]).version:
        text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        return [invalid(_CIDRS, {"cidrs": ranges}, text)]
    return errors
