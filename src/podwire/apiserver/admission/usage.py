"""What objects count for in a ResourceQuota.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from podwire.apiserver import quantity
from podwire.apiserver.admission.limits import pod_amounts

Tree = dict[str, Any]
Amounts = dict[str, Decimal]

ONE = Decimal(1)
_COUNTED = ("configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services")
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_DONE = ("Succeeded", "Failed")


def of(resource: str, tree: Tree) -> Amounts:
    """Give what one object counts for. ``resource`` is ``pods`` or ``deployments.apps``."""
    found: Amounts = {f"count/{resource}": ONE}
    if resource in _COUNTED:
        found[resource] = ONE
    spec = tree.get("spec", {})
    if resource == "pods":
        found |= _pod(tree, spec)
    elif resource == "services":
        found |= _service(spec)
    elif resource == "persistentvolumeclaims":
        found |= _claim(spec)
    return found


def _pod(tree: Tree, spec: Tree) -> Amounts:
    if tree.get("status", {}).get("phase") in _DONE:
        return {}
    found: Amounts = {"pods": ONE}
    for name, value in pod_amounts(spec, "requests").items():
        found[f"requests.{name}"] = value
        if name in _COMPUTE:
            found[name] = value
    for name, value in pod_amounts(spec, "limits").items():
        if name in _COMPUTE:
            found[f"limits.{name}"] = value
    return found


def _service(spec: Tree) -> Amounts:
    ports = Decimal(len(spec.get("ports", ())))
    match spec.get("type", "ClusterIP"):
        case "NodePort":
            return {"services.nodeports": ports}
        case "LoadBalancer":
            return {
                "services.loadbalancers": ONE,
                "services.nodeports": ports if spec.get("allocateLoadBalancerNodePorts", True) else Decimal(0),
            }
    return {}


def _claim(spec: Tree) -> Amounts:
    asked = quantity.value(str(spec.get("resources", {}).get("requests", {}).get("storage", "0")))
    found = {"requests.storage": asked}
    if storage_class := spec.get("storageClassName"):
        prefix = f"{storage_class}.storageclass.storage.k8s.io/"
        found |= {prefix + "persistentvolumeclaims": ONE, prefix + "requests.storage": asked}
    return found


def counts(quota: Tree, resource: str, tree: Tree) -> bool:
    """Say whether an object is within the scopes of a quota. Scopes are of Pods."""
    spec = quota.get("spec", {})
    wanted = [{"scopeName": one, "operator": "Exists"} for one in spec.get("scopes", ())]
    wanted += spec.get("scopeSelector", {}).get("matchExpressions", ())
    return not wanted or (resource == "pods" and all(_in_scope(one, tree.get("spec", {})) for one in wanted))


def _in_scope(scope: Tree, spec: Tree) -> bool:
    match scope["scopeName"]:
        case "Terminating":
            return spec.get("activeDeadlineSeconds") is not None
        case "NotTerminating":
            return spec.get("activeDeadlineSeconds") is None
        case "BestEffort":
            return _best_effort(spec)
        case "NotBestEffort":
            return not _best_effort(spec)
        case "PriorityClass":
            return _class_fits(scope, spec.get("priorityClassName", ""))
        case "CrossNamespacePodAffinity":
            return _across(spec)
    return False


def _best_effort(spec: Tree) -> bool:
    containers = (*spec.get("initContainers", ()), *spec.get("containers", ()))
    return not any(one.get("resources", {}).get(word) for one in containers for word in ("requests", "limits"))


def _class_fits(scope: Tree, name: str) -> bool:
    match scope["operator"]:
        case "In":
            return name in scope.get("values", ())
        case "NotIn":
            return name not in scope.get("values", ())
        case "DoesNotExist":
            return not name
    return bool(name)


def _across(spec: Tree) -> bool:
    for side in ("podAffinity", "podAntiAffinity"):
        terms = spec.get("affinity", {}).get(side, {})
        found = list(terms.get("requiredDuringSchedulingIgnoredDuringExecution", ()))
        found += [one.get("podAffinityTerm", {}) for one in terms.get("preferredDuringSchedulingIgnoredDuringExecution", ())]
        if any(term.get("namespaces") or "namespaceSelector" in term for term in found):
            return True
    return False


def missing(hard: Iterable[str], pod: Tree) -> str:
    """Say what containers leave open though a quota counts it: ``limits.cpu for: c1,c2; memory for: c1``."""
    open_: dict[str, list[str]] = {}
    for name in sorted(hard):
        word, _, what = name.partition(".") if name.startswith(("requests.", "limits.")) else ("requests", "", name)
        if what not in _COMPUTE[:2]:
            continue
        for container in (*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ())):
            if what not in container.get("resources", {}).get(word, {}):
                open_.setdefault(name, []).append(container["name"])
    return "; ".join(f"{name} for: {','.join(sorted(found))}" for name, found in open_.items())


def shown(amounts: Amounts) -> dict[str, str]:
    """Print amounts as objects carry them."""
    return {name: quantity.text(name, value) for name, value in amounts.items()}
