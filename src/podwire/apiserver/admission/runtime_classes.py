"""RuntimeClass: what a Pod's class says of its overhead and of the nodes that can run it. Pure.

Source: https://kubernetes.io/docs/concepts/containers/runtime-class/, https://kubernetes.io/docs/concepts/scheduling-eviction/pod-overhead/
"""

from __future__ import annotations

from typing import Any

from podwire.apiserver import quantity

Tree = dict[str, Any]
_UNLIKE = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
_WITHOUT = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"


def not_found(name: str) -> str:
    return f'pod rejected: RuntimeClass "{name}" not found'


def fill(spec: Tree, found: Tree | None) -> str:
    """Fill a Pod's spec with what its class says (None: it has none); gives why it may not be, or nothing."""
    overhead = ((found or {}).get("overhead") or {}).get("podFixed")
    given = spec.get("overhead")
    if not overhead:
        return _WITHOUT if given else ""
    if given and _values(given) != _values(overhead):
        return _UNLIKE
    spec["overhead"] = dict(overhead)
    return ""


def place(spec: Tree, found: Tree) -> str:
    """Keep a Pod to the nodes that its class names; gives why that cannot be, or nothing."""
    scheduling = found.get("scheduling") or {}
    own = spec.get("nodeSelector") or {}
    for key, value in sorted((scheduling.get("nodeSelector") or {}).items()):
        if own.get(key, value) != value:
            words = f"runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own[key]}"
            return f"conflict: {words}"
    if selector := {**own, **(scheduling.get("nodeSelector") or {})}:
        spec["nodeSelector"] = selector
    tolerations = list(spec.get("tolerations") or ())
    tolerations += [one for one in scheduling.get("tolerations") or () if one not in tolerations]
    if tolerations:
        spec["tolerations"] = tolerations
    return ""


def _values(amounts: Tree) -> dict[str, Any]:
    return {name: quantity.value(str(amount)) for name, amount in amounts.items()}
