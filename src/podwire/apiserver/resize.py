"""Resizing a Pod in place: what its containers ask of cpu and memory changes while they run.

Here: the subresource ``resize``, of which only the resources of containers are taken. Not here: whether the node has them (its kubelet
says so in the status), rules of every container.

Source: https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/
"""

from __future__ import annotations

from typing import Any

from podwire.apiserver.answers import Tree
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.container_validation import resources_errors
from podwire.apiserver.kinds.pod_defaults import qos_class
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import FieldError, Path, forbidden, invalid

_SPEC = Path("spec")
_PARTS = ("initContainers", "containers")
_MUTABLE = ("cpu", "memory")


def take(_api: Api, _request: Request, kind: Kind, tree: Tree, sent: Tree, old: Tree) -> list[FieldError]:
    """Take the resources that were sent; gives what is wrong with them."""
    tree["spec"] = sent.get("spec", {})
    kind.default(tree)
    return _errors(tree["spec"], old["spec"])


def _errors(spec: Tree, old: Tree) -> list[FieldError]:
    if _without_resources(spec) != _without_resources(old):
        return [forbidden(_SPEC, "only cpu and memory resources are mutable")]
    errors: list[FieldError] = []
    for part in _PARTS:
        for place, (container, before) in enumerate(zip(spec.get(part, ()), old.get(part, ()), strict=True)):
            path = _SPEC / part @ place / "resources"
            now, then = container.get("resources", {}), before.get("resources", {})
            if now == then:
                continue
            if part == "initContainers" and container.get("restartPolicy") != "Always":
                errors.append(forbidden(path, "resources for non-sidecar init containers are immutable"))
                continue
            errors += resources_errors(now, path)
            for kind in ("requests", "limits"):
                gone = [name for name in then.get(kind, {}) if name in _MUTABLE and name not in now.get(kind, {})]
                errors += [forbidden(path / kind, f"resource {kind} cannot be removed")] if gone else []
                if _others(now, kind) != _others(then, kind):
                    errors.append(forbidden(path, "only cpu and memory resources are mutable"))
    if not errors and qos_class(spec) != qos_class(old):
        errors.append(invalid(_SPEC, qos_class(spec), "Pod QOS Class may not change as a result of resizing"))
    return errors


def _others(resources: Tree, kind: str) -> dict[str, Any]:
    return {name: amount for name, amount in resources.get(kind, {}).items() if name not in _MUTABLE}


def _without_resources(spec: Tree) -> Tree:
    parts = {part: [{key: value for key, value in one.items() if key != "resources"} for one in spec.get(part, ())] for part in _PARTS}
    return spec | parts
