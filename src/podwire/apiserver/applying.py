"""Server-side apply: PATCH with a configuration, which says what its field manager wants and nothing else.

    read body ─> does it fit its kind? ─> laid over the live object, owners settled ─> the way of any other write (``writing.py``)

An object that is not there is created. Here: the request. Not here: merging (``apply.py``), owners and conflicts (``ownership.py``).

Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import orjson

from podwire.apiserver import apply as merging
from podwire.apiserver import bodies, conversion, merge_types, ownership, ownership_versions, status, writing
from podwire.apiserver.answers import Answer, Tree, decode, encode
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.ownership import LAST_APPLIED, Owner
from podwire.apiserver.requests import JSON, YAML, Request
from podwire.apiserver.schema import prune_and_check
from podwire.apiserver.validation import Path, required

_FAULTS = 10  # told at once


async def apply(api: Api, request: Request, kind: Kind, may_create: Callable[[], object], subresource: str = "") -> Answer:
    """Answer to PATCH with a configuration of an object or of its status. ``may_create`` raises for a user who may not. Raises Failure."""
    _check_options(request)
    config = _read(request)
    _check_head(request, config, kind.kind, kind.api_version, request.target.name)
    _check_fit(request, kind, config)
    config = _shaped(request, kind, config)
    if subresource == "status":
        config = {key: config[key] for key in ("apiVersion", "kind", "status") if key in config} | {"metadata": _names(config)}
    old = await conversion.latest_tree(api, kind, request.target.namespace, request.target.name)
    if old is None and not subresource:
        if "create" not in kind.verbs:
            raise status.not_found(kind, request.target.name)
        may_create()
    return await _lay(api, request, kind, config, old, subresource)


async def apply_scale(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PATCH with a configuration of a Scale: one of the number of replicas of its object. Raises Failure."""
    _check_options(request)
    scale = _read(request)
    _check_head(request, scale, "Scale", "autoscaling/v1", request.target.name)
    spec = scale.get("spec") or {}
    if not isinstance(spec, dict) or type(spec.get("replicas", 0)) is not int:
        raise status.bad_request('Scale in version "v1" cannot be handled as a Scale: spec.replicas is not a whole number')
    replicas = spec.get("replicas", 0)
    config: Tree = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": _names(scale)}
    config |= _nested(kind.custom.scale.wanted if kind.custom and kind.custom.scale else ("spec", "replicas"), replicas)
    config = _shaped(request, kind, config)
    old = await conversion.latest_tree(api, kind, request.target.namespace, request.target.name)
    return await _lay(api, request, kind, config, old, "scale")


def _nested(path: Sequence[str], value: Any) -> Tree:
    for key in reversed(path):
        value = {key: value}
    found: Tree = value
    return found


def _names(config: Tree) -> Tree:
    kept = ("name", "namespace", "uid", "resourceVersion")
    return {key: value for key, value in config["metadata"].items() if key in kept}


# Reading ---------------------------------------------------------------------------------------------------------------------


def _check_options(request: Request) -> None:
    writing.check_manager(request, "PatchOptions")
    request.flag("force")
    if not request.query.get("fieldManager"):
        raise status.invalid_options("PatchOptions", required(Path("fieldManager"), "is required for apply patch"))


def _read(request: Request) -> Tree:
    """Read a configuration, which is YAML or, as most clients have it, JSON. Raises Failure (400)."""
    found: Any = None
    if request.body.lstrip().startswith(b"{"):
        with contextlib.suppress(status.Failure):  # YAML may look like it
            found = bodies.READERS[JSON](request.body)
    if found is None:
        found = bodies.READERS[YAML](request.body)
    if not isinstance(found, dict):
        raise status.bad_request("error decoding YAML: the configuration is no object")
    return found


def _check_head(request: Request, config: Tree, kind: str, api_version: str, name: str) -> None:
    """Refuse a configuration of something else than the path names. Raises Failure (400)."""
    if config.get("apiVersion") != api_version:
        said = config.get("apiVersion", "")
        raise status.bad_request(f"Incorrect version specified in apply patch. Specified patch version: {said}, expected: {api_version}")
    if config.get("kind") != kind:
        raise status.bad_request(f"the kind of the configuration ({config.get('kind', '')}) does not match the kind of the path ({kind})")
    metadata = config.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise status.bad_request("the metadata of the configuration is no object")
    if metadata.get("managedFields") is not None:
        raise status.bad_request("metadata.managedFields must be nil")
    metadata.pop("managedFields", None)
    if (metadata.get("name") or name) != name:
        raise status.bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    namespace = request.target.namespace
    if namespace and (metadata.get("namespace") or namespace) != namespace:
        raise status.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    metadata["name"] = name
    if namespace:
        metadata["namespace"] = namespace


def _check_fit(request: Request, kind: Kind, config: Tree) -> None:
    """Refuse what is no configuration of its kind: nobody could own what the schema does not know. Raises Failure (500, as upstream)."""
    faults = list(islice(merging.faults(merge_types.of_kind(kind), config), _FAULTS))
    if not faults:
        return
    target = request.target
    what = f"{target.namespace}/{target.name}; {kind.api_version}, Kind={kind.kind}"
    told = faults[0] if len(faults) == 1 else "errors:\n" + "\n".join(f"  {fault}" for fault in faults)
    raise status.Failure(500, "", f"failed to create typed patch object ({what}): {told}")


def _shaped(request: Request, kind: Kind, config: Tree) -> Tree:
    """Bring a configuration into its kind's shape, with the nulls and empty objects that it says: they are fields. Raises Failure (400)."""
    shaped = decode(encode(config))
    bodies.check_schema(request, kind, shaped)
    _put_back(config, shaped)
    return shaped


def _put_back(said: Any, shaped: Any) -> None:
    if isinstance(said, dict) and isinstance(shaped, dict):
        for key, value in said.items():
            if key in shaped:
                _put_back(value, shaped[key])
            elif value is None or value == {}:
                shaped[key] = value
    elif isinstance(said, list) and isinstance(shaped, list):
        for one, other in zip(said, shaped, strict=True):
            _put_back(one, other)


# Writing ---------------------------------------------------------------------------------------------------------------------


async def _lay(api: Api, request: Request, kind: Kind, config: Tree, old: Tree | None, subresource: str) -> Answer:
    """Lay a configuration over what is stored, and store that. Raises Failure."""
    if kind.has_status and subresource != "status" and not (old is None and kind.created_with_status):
        config.pop("status", None)
    live = decode(encode(old)) if old is not None else {}
    owner = Owner(request.field_manager, ownership.APPLY, kind.api_version, request.target.subresource)
    entries = live.get("metadata", {}).get("managedFields", [])
    try:
        laid = await _applied(kind, entries, live, config, owner, force=request.flag("force"))
    except ownership.Conflicts as conflicts:
        raise status.apply_conflict(str(conflicts), conflicts.found) from None
    # What is shared with the configuration, or with the entries, must not be changed from here on.
    tree = decode(encode({**laid.tree, "metadata": {**laid.tree["metadata"], "managedFields": None}}))
    prune_and_check(kind, tree)
    if old is not None:
        _follow_annotation(tree, config, owner)
        return await writing.update_tree(api, request, kind, tree, old, "status" if subresource == "status" else "", laid.owned)
    if subresource:
        raise status.not_found(kind, request.target.name)
    uid = tree["metadata"].get("uid")
    if uid:
        why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        raise status.conflict(kind, request.target.name, why)
    return await writing.create_tree(api, request, kind, tree, laid.owned)


async def _applied(kind: Kind, entries: list[ownership.Entry], live: Tree, config: Tree, owner: Owner, *, force: bool) -> ownership.Applied:
    """Apply a configuration, in whatever versions others own fields. Raises Conflicts, Failure."""
    if kind.versions is None or not ownership_versions.is_needed(entries, kind.api_version):
        return ownership.applied(merge_types.of_kind(kind), entries, live, config, owner, force=force)
    steps = ownership_versions.applied(conversion.types(kind), entries, live, config, owner, force=force)
    return await conversion.taken(kind, steps)


def _follow_annotation(tree: Tree, config: Tree, owner: Owner) -> None:
    """Keep up to date what client-side apply compares with, where it is there already: a user of kubectl may go back to it."""
    annotations = tree["metadata"].get("annotations") or {}
    if owner.manager != ownership.KUBECTL or not annotations.get(LAST_APPLIED):
        return
    metadata = dict(config["metadata"])
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {key: value for key, value in metadata["annotations"].items() if key != LAST_APPLIED}
    annotations[LAST_APPLIED] = orjson.dumps({**config, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
