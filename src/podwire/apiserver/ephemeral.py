"""Ephemeral containers of a Pod (``kubectl debug``): they are added while it lives, and neither changed nor taken away.

Here: the subresource ``ephemeralcontainers``, of which only ``spec.ephemeralContainers`` is taken. Not here: rules of every container.

Source: https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/
"""

from __future__ import annotations

from podwire.apiserver.answers import Tree
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.container_validation import container_errors
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import FieldError, Path, forbidden, not_found

_PATH = Path("spec") / "ephemeralContainers"
_NOT_THEIRS = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources")


def take(_api: Api, _request: Request, kind: Kind, tree: Tree, sent: Tree, old: Tree) -> list[FieldError]:
    """Take the ephemeral containers that were sent; gives what is wrong with them."""
    tree["spec"]["ephemeralContainers"] = sent.get("spec", {}).get("ephemeralContainers") or []
    kind.default(tree)
    return _errors(tree, old)


def _errors(tree: Tree, old: Tree) -> list[FieldError]:
    spec = tree["spec"]
    names = {one["name"] for key in ("containers", "initContainers") for one in spec.get(key, ())}
    targets, volumes = set(names), {one["name"] for one in spec.get("volumes", ())}
    errors: list[FieldError] = []
    for place, container in enumerate(spec["ephemeralContainers"]):
        path = _PATH @ place
        errors += container_errors(container, volumes, names, path)
        errors += [forbidden(path / field, "cannot be set for an Ephemeral Container") for field in _NOT_THEIRS if container.get(field)]
        target = container.get("targetContainerName", "")
        if target and target not in targets:
            errors.append(not_found(path / "targetContainerName", target))
    now = {container.get("name"): container for container in spec["ephemeralContainers"]}
    for container in old["spec"].get("ephemeralContainers", ()):
        if now.get(container["name"]) != container:
            words = "existing ephemeral containers" + (f' "{container["name"]}" may not be ')
            errors.append(forbidden(_PATH, words + ("changed" if container["name"] in now else "removed")))
    return errors
