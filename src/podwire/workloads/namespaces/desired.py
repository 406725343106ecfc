"""What a namespace that was told to end still needs: to be emptied, kind by kind, and then to be let go.

Pure. Which kinds there are is what the API says of itself, so kinds that nobody here knows are emptied too.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/namespace-v1/,
https://kubernetes.io/docs/reference/using-api/api-concepts/#api-discovery
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from podwire.objects.meta import Object
from podwire.objects.resources import Resource
from podwire.workloads.kinds import Tree

FINALIZER = "kubernetes"
LAST = ("events",)  # written while others end


def listed(group_version: str, resources: Iterable[Mapping[str, Any]]) -> list[tuple[Resource[Object], frozenset[str]]]:
    """Give the kinds of one APIResourceList with their verbs; subresources are left out."""
    group, _, version = group_version.rpartition("/")
    return [
        (
            Resource(one.get("group") or group, one.get("version") or version, one["name"], one["kind"], bool(one["namespaced"]), Object),
            frozenset(one.get("verbs") or ()),
        )
        for one in resources
        if "/" not in one["name"]
    ]


def to_empty(kinds: Iterable[tuple[Resource[Object], frozenset[str]]]) -> list[Resource[Object]]:
    """Give the kinds whose objects a namespace holds, in the order in which they are deleted."""
    chosen = [resource for resource, verbs in kinds if resource.namespaced and {"list", "delete"} <= verbs]
    return sorted(chosen, key=lambda resource: (resource.plural in LAST, resource.group, resource.plural))


def finalized(namespace: Tree) -> Tree:
    """Give the namespace without our finalizer, as the subresource ``finalize`` takes it."""
    spec = namespace.get("spec") or {}
    left = [one for one in spec.get("finalizers") or () if one != FINALIZER]
    return namespace | {"apiVersion": "v1", "kind": "Namespace", "spec": spec | {"finalizers": left}}


def waits(remaining: Mapping[str, int], held: Mapping[str, int]) -> str:
    """Say what a namespace still waits for; "" for nothing. ``held`` counts finalizers by name."""
    parts = [f"{plural} has {count} object(s) left" for plural, count in sorted(remaining.items()) if count]
    parts += [f"finalizer {name} holds {count}" for name, count in sorted(held.items())]
    return ", ".join(parts)


def conditions(waiting: str, now: str, former: Iterable[Mapping[str, Any]]) -> list[Tree] | None:
    """Give the conditions that tell why a namespace lasts; None if they say so already."""
    kind = "NamespaceContentRemaining"
    had = next((one for one in former if one.get("type") == kind), None)
    if had is not None and had.get("message") == waiting:
        return None
    return [{"type": kind, "status": "True", "reason": "SomeResourcesRemain", "message": waiting, "lastTransitionTime": now}]
