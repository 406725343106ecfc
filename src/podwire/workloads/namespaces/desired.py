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


_FINE = (
    ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered"),
    ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed"),
    ("NamespaceDeletionContentFailure", "ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    ("NamespaceContentRemaining", "ContentRemoved", "All content successfully removed"),
    ("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", "All content-preserving finalizers finished"),
)
"""Each condition of a namespace that ends, as it is while nothing is wrong: a type, a reason, a message."""


def waits(remaining: Mapping[tuple[str, str], int], held: Mapping[str, int]) -> dict[str, tuple[str, str]]:
    """Say what a namespace still waits for: a reason and a message by type of condition; empty for nothing.

    ``remaining`` counts objects by (plural, group), ``held`` those that a finalizer holds, by its name.
    """
    found = {}
    left = sorted(f"{plural}.{group} has {count} resource instances" for (plural, group), count in remaining.items() if count)
    if left:
        found["NamespaceContentRemaining"] = "SomeResourcesRemain", f"Some resources are remaining: {', '.join(left)}"
    holding = sorted(f"{name} in {count} resource instances" for name, count in held.items() if count)
    if holding:
        message = f"Some content in the namespace has finalizers remaining: {', '.join(holding)}"
        found["NamespaceFinalizersRemaining"] = "SomeFinalizersRemain", message
    return found


def conditions(waiting: Mapping[str, tuple[str, str]], now: str, former: Iterable[Mapping[str, Any]]) -> list[Tree] | None:
    """Give the conditions that tell why a namespace lasts; None if they say so already. Those of others stay."""
    had = {str(one.get("type")): dict(one) for one in former}
    wanted = dict(had)
    for kind, *fine in _FINE:
        reason, message = waiting.get(kind, fine)
        said = {"type": kind, "status": "True" if kind in waiting else "False", "reason": reason, "message": message}
        if {name: had.get(kind, {}).get(name) for name in said} != said:
            wanted[kind] = said | {"lastTransitionTime": now}
    return None if wanted == had else list(wanted.values())
