"""Subresources with a body of their own: scale, binding, finalize, and where those that write one part (``parts.py``) are found.

``status`` is a write of the object itself: ``writing.py``.

Source: https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from podwire.apiserver import applying, approval, bodies, conversion, ephemeral, eviction, keys, resize, status, writing
from podwire.apiserver.answers import Answer, Tree, answer, decode, encode
from podwire.apiserver.api import Api, latest_tree
from podwire.apiserver.auth import token_request
from podwire.apiserver.kind import Kind, ScalePaths
from podwire.apiserver.kinds.certificates import SIGNING_REQUEST
from podwire.apiserver.parts import Part
from podwire.apiserver.requests import APPLY_PATCH, Request
from podwire.apiserver.validation import Path, invalid

Handler = Callable[[Api, Request, Kind], Awaitable[Answer]]


# scale -------------------------------------------------------------------------------------------------------------------


def _scale(kind: Kind, tree: Tree) -> Tree:
    """Show an object as its Scale. Raises Failure (500) for an object that does not say how many it wants."""
    metadata, paths = tree["metadata"], _paths(kind)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    wanted, selector = _at(tree, paths.wanted), _at(tree, paths.selector)
    if kind.custom is not None and wanted is None:
        raise status.internal(f'the spec replicas field ".{".".join(paths.wanted)}" does not exist')
    state: Tree = {"replicas": _at(tree, paths.found) or 0}
    if kind.custom is None:
        state["selector"] = _selector_text(selector or {})
    elif selector:
        state["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": wanted} if wanted else {},
        "status": state,
    }


_USUAL = ScalePaths(("spec", "replicas"), ("status", "replicas"), ("spec", "selector"))


def _paths(kind: Kind) -> ScalePaths:
    return kind.custom.scale if kind.custom is not None and kind.custom.scale is not None else _USUAL


def _at(tree: Tree, path: Sequence[str]) -> Any:
    found: Any = tree if path else None
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _selector_text(selector: Tree) -> str:
    """Print a selector in the form that a query takes. A ReplicationController's is a plain map."""
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    terms = [f"{key}={value}" for key, value in sorted(selector.get("matchLabels", {}).items())]
    for requirement in selector.get("matchExpressions", ()):
        key, values = requirement["key"], ",".join(sorted(requirement.get("values", ())))
        terms.append(
            {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key, "DoesNotExist": f"!{key}"}[
                requirement["operator"]
            ]
        )
    return ",".join(terms)


async def get_scale(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to GET of a Scale."""
    target = request.target
    record = api.store.get(keys.key(kind, target.namespace, target.name))
    if record is None:
        raise status.not_found(kind, target.name)
    return answer(_scale(kind, await conversion.tree_of(kind, record)))


async def update_scale(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PUT of a Scale. Raises Failure."""
    return await _write_scale(api, request, kind, lambda _old: bodies.tree(request))


async def patch_scale(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PATCH of a Scale. Raises Failure."""
    if request.content_type == APPLY_PATCH:
        written = await applying.apply_scale(api, request, kind)
        return answer(_scale(kind, decode(written.body)))
    change = writing.read_patch(request)
    return await _write_scale(api, request, kind, lambda old: writing.patched(request, None, _scale(kind, old), change))


async def _write_scale(api: Api, request: Request, kind: Kind, make: Callable[[Tree], Tree]) -> Answer:
    target = request.target
    old = await conversion.latest_tree(api, kind, target.namespace, target.name)
    if old is None:
        raise status.not_found(kind, target.name)
    scale = make(old)
    metadata, replicas = scale.get("metadata") or {}, (scale.get("spec") or {}).get("replicas", 0)
    if type(replicas) is not int:
        raise status.bad_request('Scale in version "v1" cannot be handled as a Scale: spec.replicas is not a whole number')
    if replicas < 0:
        error = invalid(Path("spec") / "replicas", replicas, "must be greater than or equal to 0")
        raise status.Failure(
            422, "Invalid", f'Scale.autoscaling "{target.name}" is invalid: {error}', {"name": target.name, "kind": "Scale"}
        )
    tree = decode(encode(old))
    *above, last = _paths(kind).wanted
    place = tree
    for key in above:
        place = place.setdefault(key, {})
    place[last] = replicas
    for field in ("resourceVersion", "uid"):
        if metadata.get(field):
            tree["metadata"][field] = metadata[field]
    written = await writing.update_tree(api, request, kind, tree, old)
    return answer(_scale(kind, decode(written.body)))


# Pods: binding -----------------------------------------------------------------------------------------------------------


async def bind(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to POST of a Binding: the Pod is placed on a node, once. Raises Failure."""
    binding = bodies.tree(request)
    target = request.target
    node = (binding.get("target") or {}).get("name", "")
    if not node or (binding.get("target") or {}).get("kind", "Node") != "Node":
        raise status.Failure(
            422, "Invalid", f'Binding "{target.name}" is invalid: target.name: Required value', {"name": target.name, "kind": "Binding"}
        )
    old = latest_tree(api, kind, target.namespace, target.name)
    if old is None:
        raise status.not_found(kind, target.name)
    _check_bindable(kind, old, binding)
    tree = decode(encode(old))
    tree["spec"]["nodeName"] = node
    annotations = (binding.get("metadata") or {}).get("annotations") or {}
    if annotations:
        tree["metadata"].setdefault("annotations", {}).update(annotations)
    state = tree.setdefault("status", {})
    conditions = [one for one in state.get("conditions", ()) if one.get("type") != "PodScheduled"]
    now = api.timestamp()
    conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now})
    state["conditions"] = conditions
    state.pop("nominatedNodeName", None)
    if not request.dry_run:
        await writing.store_as_is(api, kind, tree)
    return answer(status.success(code=201), 201)


def _check_bindable(kind: Kind, pod: Tree, binding: Tree) -> None:
    name, spec = pod["metadata"]["name"], pod.get("spec", {})
    uid = (binding.get("metadata") or {}).get("uid", "")
    if uid and uid != pod["metadata"]["uid"]:
        message = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {pod['metadata']['uid']}"
        raise status.conflict(kind, name, message)
    if pod["metadata"].get("deletionTimestamp"):
        raise status.conflict(kind, name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise status.conflict(kind, name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise status.conflict(kind, name, f"pod {name} has non-empty .spec.schedulingGates")


# Namespaces: finalize ------------------------------------------------------------------------------------------------------


async def finalize(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PUT of a Namespace's finalize: only ``spec.finalizers`` is taken. Raises Failure.

    When the last finalizer goes, the Namespace goes.
    """
    sent = bodies.of_kind(request, kind)
    bodies.check_schema(request, kind, sent)
    target = request.target
    old = latest_tree(api, kind, "", target.name)
    if old is None:
        raise status.not_found(kind, target.name)
    version = sent["metadata"].get("resourceVersion", "")
    if version and version != old["metadata"]["resourceVersion"]:
        raise status.modified(kind, target.name)
    tree = decode(encode(old))
    finalizers = (sent.get("spec") or {}).get("finalizers") or []
    if finalizers:
        tree.setdefault("spec", {})["finalizers"] = finalizers
    else:
        tree.get("spec", {}).pop("finalizers", None)
    if not request.dry_run and tree != old:
        await writing.store_as_is(api, kind, tree)
    return answer(tree)


def _handlers(subresource: str, resource: str, part: Part) -> dict[tuple[str, str, str], Handler]:
    return {(subresource, verb, resource): handler for verb, handler in (("get", part.get), ("update", part.update), ("patch", part.patch))}


HANDLERS: dict[tuple[str, str, str], Handler] = {
    # subresource, verb, resource ("": any) -> handler
    ("scale", "get", ""): get_scale,
    ("scale", "update", ""): update_scale,
    ("scale", "patch", ""): patch_scale,
    ("binding", "create", "pods"): bind,
    ("eviction", "create", "pods"): eviction.evict,
    ("finalize", "update", "namespaces"): finalize,
    ("token", "create", "serviceaccounts"): token_request.create,
    **_handlers("ephemeralcontainers", "pods", Part(ephemeral.take)),
    **_handlers("resize", "pods", Part(resize.take)),
    **_handlers("approval", SIGNING_REQUEST.resource, Part(approval.take, wanted=False)),
}
