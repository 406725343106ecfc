"""Delete: what goes at once, what is given time, what has to wait for somebody.

An object goes at once when nothing holds it. A Pod on a node is given its grace period: it is marked with the time at which it must have
stopped, and the node deletes it for good, with a grace period of 0, when it has. An object with finalizers is marked and goes with the
last of them. How its dependents are dealt with is left to the collector of garbage: ``orphan`` and ``foregroundDeletion`` are finalizers
that it acts on and removes. A Namespace is marked and goes when what is in it has gone, which its controller says by removing its own
finalizer.

Source: https://kubernetes.io/docs/concepts/architecture/garbage-collection/ and
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from podwire.apiserver import bodies, conversion, keys, reading, shapes, status
from podwire.apiserver.admission import gate
from podwire.apiserver.answers import Answer, Tree, answer, decode, encode
from podwire.apiserver.api import Api, latest_tree, put, remove
from podwire.apiserver.auth import guards
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import UNSUPPORTED, FieldError
from podwire.apiserver.writing import is_finished
from podwire.store import Transaction

ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_POLICIES = ("Orphan", "Foreground", "Background")
_KEPT_NAMESPACES = ("default", "kube-system", "kube-public")
_DEFAULT_GRACE_S = 30
_TOGETHER = 50  # objects of a collection that are deleted before others are served


@dataclass(frozen=True, slots=True)
class Options:
    """What a DeleteOptions object says. ``grace_s`` None: what the object itself wants."""

    grace_s: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    dry_run: bool = False


def options(request: Request) -> Options:
    """Read the options from the body, else from the query. Raises Failure (400, 415)."""
    return read_options(request, bodies.tree(request) if request.body.strip() else {})


def read_options(request: Request, tree: Tree) -> Options:
    """Read the options from a DeleteOptions object; what it leaves out, from the query. Raises Failure (400)."""
    grace: Any = tree.get("gracePeriodSeconds")
    if grace is None and "gracePeriodSeconds" in request.query:
        grace = request.number("gracePeriodSeconds")
    if grace is not None and type(grace) is not int:
        raise status.bad_request("DeleteOptions: gracePeriodSeconds is not a whole number")
    preconditions = tree.get("preconditions") or {}
    if not isinstance(preconditions, dict):
        raise status.bad_request("DeleteOptions: preconditions is not an object")
    propagation = tree.get("propagationPolicy") or request.query.get("propagationPolicy", "")
    orphan = tree.get("orphanDependents")
    if not propagation and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if not isinstance(propagation, str):
        raise status.bad_request("DeleteOptions: propagationPolicy is not a string")
    if propagation and propagation not in _POLICIES:
        known = 'supported values: "Foreground", "Background", "Orphan", "nil"'
        raise status.invalid_options("DeleteOptions", FieldError(UNSUPPORTED, "propagationPolicy", propagation, known))
    dry_run = request.dry_run or tree.get("dryRun") == ["All"]
    return Options(
        None if grace is None else max(grace, 0) if grace >= 0 else 1,
        str(preconditions.get("uid") or ""),
        str(preconditions.get("resourceVersion") or ""),
        propagation,
        dry_run,
    )


async def delete(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to DELETE of an object: the object when it is marked, a Status when it is gone. Raises Failure."""
    wanted = options(request)
    target = request.target
    record = api.store.latest(keys.key(kind, target.namespace, target.name))
    if record is None:
        raise status.not_found(kind, target.name)
    tree = decode(record.value)
    seen = tree if kind.versions is None else await conversion.tree_of(kind, record)
    guards.check_delete(request.user, kind, seen)
    check(kind, seen, wanted)
    if await gate.deleted(api, request, kind, seen) or kind.versions is not None:
        latest = latest_tree(api, kind, target.namespace, target.name)
        if latest != tree:
            raise gate.Overtaken
    row = conversion.row_of(kind, tree)
    check_unused(api, row, tree)
    marked = mark(api, row, tree, wanted)
    gone = is_finished(row, tree)
    if not wanted.dry_run:
        if gone or marked:
            transaction = api.store.transaction()
            _take(transaction, row, tree)
            await asyncio.shield(api.store.commit(transaction))
        else:
            await api.store.reached(int(tree["metadata"]["resourceVersion"]))
    if gone:
        return answer(status.success(kind, target.name, tree["metadata"].get("uid", "")))
    return shapes.one(api, request, kind, encode(_with_metadata_of(tree, seen)))


def _with_metadata_of(marked: Tree, seen: Tree) -> Tree:
    """Show an object that was marked as its request sees it: marking changes its metadata alone."""
    if seen is marked:
        return marked
    own = {key: seen["metadata"][key] for key in ("labels", "annotations") if key in seen["metadata"]}
    others = {key: value for key, value in marked["metadata"].items() if key not in ("labels", "annotations")}
    return {**seen, "metadata": others | own}


async def delete_collection(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to DELETE of what is selected: the list of it. Raises Failure."""
    wanted = options(request)
    chosen = reading.select(request, kind)
    records = await conversion.shown(kind, api.store.range(keys.prefix(kind, request.target.namespace)))
    records = [record for record in records if not chosen or chosen(record)]
    deleted: list[Tree] = []
    for start in range(0, len(records), _TOGETHER):
        for record in records[start : start + _TOGETHER] if api.admission.asks_of_deletions else ():
            await gate.deleted(api, request, kind, decode(record.value))
        transaction = api.store.transaction()
        for record in records[start : start + _TOGETHER]:
            latest = api.store.latest(record.key)
            if latest is None:
                continue
            tree = decode(latest.value)
            row = conversion.row_of(kind, tree)
            check(row, tree, wanted)
            check_unused(api, row, tree)
            if (mark(api, row, tree, wanted) or is_finished(row, tree)) and not wanted.dry_run:
                _take(transaction, row, tree)
            deleted.append(tree if kind.versions is None else _with_metadata_of(tree, decode(record.value)))
        if transaction.changes:
            await asyncio.shield(api.store.commit(transaction))
    metadata = {"resourceVersion": str(api.store.revision)}
    return Answer(200, orjson.dumps({"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": metadata, "items": deleted}))


def _take(transaction: Transaction, kind: Kind, tree: Tree) -> None:
    if is_finished(kind, tree):
        remove(transaction, kind, tree)
    else:
        put(transaction, kind, tree)


def check(kind: Kind, tree: Tree, wanted: Options) -> None:
    """Refuse what was asked for another object or another state, or may not be. Raises Failure (403, 409)."""
    metadata = tree["metadata"]
    name = metadata["name"]
    for what, asked, actual in (
        ("UID", wanted.uid, metadata.get("uid", "")),
        ("ResourceVersion", wanted.resource_version, metadata.get("resourceVersion", "")),
    ):
        if asked and asked != actual:
            message = f"Precondition failed: {what} in precondition: {asked}, {what} in object meta: {actual}"
            raise status.conflict(kind, name, message)
    if kind.resource == "namespaces" and name in _KEPT_NAMESPACES:
        raise status.forbidden(kind, name, "this namespace may not be deleted")


def check_unused(api: Api, kind: Kind, tree: Tree) -> None:
    """Refuse to delete what another object uses. Raises Failure (400)."""
    user = api.registry.find(kind.group, kind.version, kind.kept_by.plural) if kind.kept_by is not None else None
    if kind.kept_by is None or user is None:
        return
    for record in api.store.latest_range(keys.prefix(user)):
        other = decode(record.value)
        if kind.kept_by.uses(other, tree):
            raise status.in_use(kind, tree["metadata"]["name"], user, other["metadata"]["name"])


def mark(api: Api, kind: Kind, tree: Tree, wanted: Options) -> bool:
    """Mark an object as being deleted, in place; say whether that changed it. ``is_finished`` then says whether it is gone at once."""
    metadata = tree["metadata"]
    before = encode(tree)
    grace_s = _grace(kind, tree, wanted)
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = api.timestamp(grace_s)
        metadata["deletionGracePeriodSeconds"] = grace_s
        kind.mark(tree)
        if kind.generations and metadata.get("generation"):
            metadata["generation"] += 1
    elif grace_s < metadata.get("deletionGracePeriodSeconds", 0):
        sooner = datetime.fromisoformat(metadata["deletionTimestamp"]) - timedelta(seconds=metadata["deletionGracePeriodSeconds"] - grace_s)
        metadata["deletionTimestamp"] = sooner.strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata["deletionGracePeriodSeconds"] = grace_s
    _propagate(metadata, wanted.propagation)
    if kind.resource == "namespaces":
        tree.setdefault("status", {})["phase"] = "Terminating"
    return encode(tree) != before


def _grace(kind: Kind, tree: Tree, wanted: Options) -> int:
    """Give the seconds that the object is left to stop in."""
    if not kind.graceful:
        return 0
    metadata, spec = tree["metadata"], tree.get("spec", {})
    if not spec.get("nodeName") or tree.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    if wanted.grace_s is not None:
        return wanted.grace_s
    if "deletionGracePeriodSeconds" in metadata:
        return int(metadata["deletionGracePeriodSeconds"])
    return int(spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S))


def _propagate(metadata: Tree, policy: str) -> None:
    if not policy:
        return
    finalizers = [one for one in metadata.get("finalizers", ()) if one not in (ORPHAN, FOREGROUND)]
    if policy == "Orphan":
        finalizers.append(ORPHAN)
    elif policy == "Foreground":
        finalizers.append(FOREGROUND)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
