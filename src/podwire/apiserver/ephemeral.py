"""Ephemeral containers of a Pod (``kubectl debug``): they are added while it lives, and neither changed nor taken away.

Here: the subresource ``ephemeralcontainers``, of which only ``spec.ephemeralContainers`` is taken. Not here: rules of every container.

Source: https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/
"""

from __future__ import annotations

from podwire.apiserver import bodies, reading, status, writing
from podwire.apiserver.answers import Answer, Tree, answer, decode, encode
from podwire.apiserver.api import Api, latest_tree
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.container_validation import container_errors
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import FieldError, Path, forbidden, not_found

_PATH = Path("spec") / "ephemeralContainers"
_NOT_THEIRS = ("ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources")


async def get(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to GET: the Pod. Raises Failure."""
    return await reading.get(api, request, kind)


async def update(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PUT of the Pod with its ephemeral containers. Raises Failure."""
    sent = bodies.of_kind(request, kind)
    bodies.check_schema(request, kind, sent)
    return await _write(api, request, kind, _live(api, request, kind), sent)


async def patch(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PATCH of them. Raises Failure."""
    change, old = writing.read_patch(request), _live(api, request, kind)
    return await _write(api, request, kind, old, writing.patched(request, kind, old, change))


def _live(api: Api, request: Request, kind: Kind) -> Tree:
    old = latest_tree(api, kind, request.target.namespace, request.target.name)
    if old is None:
        raise status.not_found(kind, request.target.name)
    return old


async def _write(api: Api, request: Request, kind: Kind, old: Tree, sent: Tree) -> Answer:
    version = sent.get("metadata", {}).get("resourceVersion", "")
    if version and version != old["metadata"]["resourceVersion"]:
        raise status.modified(kind, request.target.name)
    tree = decode(encode(old))
    tree["spec"]["ephemeralContainers"] = sent.get("spec", {}).get("ephemeralContainers") or []
    kind.default(tree)
    if errors := _errors(tree, old):
        raise status.invalid(kind, request.target.name, errors)
    if tree != old:
        tree["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if not request.dry_run:
            await writing.store_as_is(api, kind, tree)
    return answer(tree)


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
