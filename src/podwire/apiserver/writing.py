"""Create, update, patch: the way of an object into the store.

Each verb ends in a stretch without an ``await``: read the latest state, make the next one, check it, commit it. The event loop runs
nothing else meanwhile, so two writers never work from the same state, and no lock is held. Then the answer waits until the write is on
disk.

    create: body ─> shape (schema) ─> kind.fill ─> owners ─> who changes it ─> kind.prepare ─> addresses ─> kind.check ─> who refuses it
    update: body ─> shape (schema) ─> who changes it ─> kind.for_update ─> owners ─> addresses ─> kind.check ─> who refuses it
    ─> commit ─> on disk ─> answer

Webhooks are the only ones who are waited for, of admission and of conversion (``conversion.py``); then what is stored is looked at again
(``admission/gate.py``).

A configuration that is applied on the server's side is made into a tree by ``applying.py`` and goes the same way.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

from podwire.apiserver import (
    bodies,
    conversion,
    keys,
    merge_types,
    ownership,
    ownership_versions,
    patch_refusals,
    shapes,
    status,
    templates,
)
from podwire.apiserver.admission import gate
from podwire.apiserver.answers import Answer, Tree, decode, encode
from podwire.apiserver.api import Api, Grant, fresh_uid, generated_name, latest_tree, put, remove
from podwire.apiserver.auth import guards
from podwire.apiserver.conversion import Kept
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.core import POD
from podwire.apiserver.kinds.limits import RESOURCE_QUOTA
from podwire.apiserver.ownership import Owned, Owner
from podwire.apiserver.patch import PatchError, json_patch, merge_patch
from podwire.apiserver.patch_strategic import strategic_merge_patch
from podwire.apiserver.requests import CUSTOM_PATCHES, JSON, JSON_PATCH, MANAGER_LIMIT, MERGE_PATCH, PATCHES, STRATEGIC_PATCH, Request
from podwire.apiserver.templates import Key, Template
from podwire.apiserver.validation import Path, forbidden, invalid, too_long

_NAME_TRIES = 8  # generated names that are taken before the client is asked to try again


async def create(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to POST of an object. Raises Failure."""
    check_manager(request, "CreateOptions")
    tree = bodies.of_kind(request, kind)
    sent = None
    if kind is POD and (variant := api.admission.variant(request.target.namespace, tree)) is not None:
        sent = templates.key(tree, variant)
    template = templates.find(sent) if sent is not None else None
    if template is None:
        bodies.check_schema(request, kind, tree)
        if sent is not None and not sent.is_unchanged(tree):
            sent = None
        return await create_tree(api, request, kind, tree, sent=sent)
    del tree["spec"]
    bodies.check_schema(request, kind, tree)
    tree["spec"] = template.spec
    return await create_tree(api, request, kind, tree, template=template)


async def create_tree(
    api: Api,
    request: Request,
    kind: Kind,
    tree: Tree,
    owned: Owned | None = None,
    *,
    template: Template | None = None,
    sent: Key | None = None,
) -> Answer:
    """Store a new object that has the shape of its kind. Without ``owned`` its fields are the writer's. Raises Failure.

    ``template``: its spec is the template's, and right; ``sent``: it is a Pod, of whose spec this is remembered by.
    """
    metadata = tree["metadata"]
    _place(request, kind, metadata)
    if metadata.get("resourceVersion"):
        raise status.bad_request("resourceVersion should not be set on objects to be created")
    generated = not metadata.get("name") and bool(metadata.get("generateName"))
    if generated:
        metadata["name"] = _free_name(api, kind, metadata)
    name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
    guards.check_write(api, request.user, kind, tree, None, "")
    _check_namespace(api, kind, namespace, name)
    for field in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        metadata.pop(field, None)
    metadata["uid"] = fresh_uid()
    now = metadata["creationTimestamp"] = api.timestamp()
    waited = False
    if template is not None:
        owned = _owned(request, kind, tree, template)
        tree["status"] = template.status
        kind.count_first(tree)
    else:
        kind.fill(tree)
        owned = owned or _owned(request, kind, tree)
        tree, waited = await gate.changed(api, request, kind, tree, None)
        kind.prepare(tree)
    _set_owners(tree, ownership.stamped(owned, now))
    _check_new(api, kind, namespace, name, waited)
    grant = _checked(api, request, kind, tree, None, "", known=template is not None)
    with _abandoned_on_failure(grant):
        waited = await gate.refused(api, request, kind, tree, None)
        kept = await conversion.kept(kind, tree)
        if waited or kind.versions is not None:
            _check_new(api, kind, namespace, name, True)
    if sent is not None:
        templates.remember(sent, tree, owned)
    return await _store(api, request, kind, kept, None, grant, 201, template)


async def update(api: Api, request: Request, kind: Kind, subresource: str = "") -> Answer:
    """Answer to PUT of an object or of its status. Raises Failure."""
    check_manager(request, "UpdateOptions")
    tree = bodies.of_kind(request, kind)
    ownership.keep_reset(tree)
    bodies.check_schema(request, kind, tree)
    metadata, target = tree["metadata"], request.target
    _place(request, kind, metadata)
    name = metadata.setdefault("name", target.name)
    if name != target.name:
        raise status.bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
    old = await conversion.latest_tree(api, kind, target.namespace, target.name)
    if old is None:
        if kind.create_on_update and not subresource:
            metadata.pop("resourceVersion", None)
            return await create_tree(api, request, kind, tree)
        raise status.not_found(kind, target.name)
    return await update_tree(api, request, kind, tree, old, subresource)


async def update_tree(
    api: Api, request: Request, kind: Kind, tree: Tree, old: Tree, subresource: str = "", owned: Owned | None = None
) -> Answer:
    """Store the next state of an object that has the shape of its kind. Without ``owned`` what changed is the writer's. Raises Failure."""
    _check_versions(kind, tree["metadata"], old["metadata"])
    tree, waited = await gate.changed(api, request, kind, tree, old, subresource)
    if waited:
        check_latest(api, kind, old)
    sent = tree["metadata"].pop("managedFields", None)
    kind.for_update(tree, old, subresource)
    guards.check_write(api, request.user, kind, tree, old, subresource)
    if owned is None:
        entries = ownership.basis(sent, old["metadata"].get("managedFields", ()), request.target.subresource)
        owned = await _updated(kind, entries, old, tree, _owner(request, kind))
    _set_owners(tree, owned.entries)
    grant = _checked(api, request, kind, tree, old, subresource)
    with _abandoned_on_failure(grant):
        if await gate.refused(api, request, kind, tree, old, subresource):
            check_latest(api, kind, old)
        tree["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        is_changed = tree != old
        if is_changed or conversion.is_outdated(api, kind, old["metadata"]):
            _set_owners(tree, ownership.stamped(owned, api.timestamp()) if is_changed else owned.entries)
            kept = await conversion.kept(kind, tree)
            if kind.versions is not None:
                check_latest(api, kind, old)
            return await _store(api, request, kind, kept, old, grant, 200)
    grant.abandon()
    await _on_disk(api, old)
    return shapes.one(api, request, kind, encode(old))


async def patch(api: Api, request: Request, kind: Kind, subresource: str = "") -> Answer:
    """Answer to PATCH of an object or of its status. Raises Failure."""
    check_manager(request, "PatchOptions")
    if kind.custom is not None and request.content_type == STRATEGIC_PATCH:
        raise status.unsupported_media_type(STRATEGIC_PATCH, CUSTOM_PATCHES)
    change = read_patch(request)
    target = request.target
    old = await conversion.latest_tree(api, kind, target.namespace, target.name)
    if old is None:
        raise status.not_found(kind, target.name)
    # The patched tree may share parts with the one it was made of, and is changed from here on: so it is made of a copy.
    tree = patched(request, kind, decode(encode(old)), change)
    ownership.keep_reset(tree)
    bodies.check_schema(request, kind, tree, partial(_unfit, request, kind, old, change))
    metadata = tree["metadata"]
    for field in ("name", "namespace", "uid"):
        if metadata.get(field, old["metadata"].get(field)) != old["metadata"].get(field):
            raise status.invalid(kind, target.name, [invalid(Path("metadata") / field, metadata[field], "field is immutable")])
    tree["apiVersion"], tree["kind"] = kind.api_version, kind.kind
    return await update_tree(api, request, kind, tree, old, subresource)


def _unfit(request: Request, kind: Kind, old: Tree, change: Any, why: str) -> status.Failure:
    """Refuse what came of a patch: what it was before fields fell out of it is worked out once more."""
    if request.content_type == STRATEGIC_PATCH:
        return patch_refusals.unfit(change, why, strategic=True)
    return patch_refusals.unfit(patched(request, kind, decode(encode(old)), change), why, strategic=False)


def read_patch(request: Request) -> Any:
    """Read the body of a patch, which is a list of operations or an object. Raises Failure (400, 415, 422)."""
    media = request.content_type
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH):
        raise status.unsupported_media_type(media, PATCHES)
    if "force" in request.query:
        raise status.invalid_options("PatchOptions", forbidden(Path("force"), "may not be specified for non-apply patch"))
    change = bodies.READERS[JSON](request.body)
    wanted, name = (list, "[]interface {}") if media == JSON_PATCH else (dict, "map[string]interface {}")
    if not isinstance(change, wanted):
        raise patch_refusals.no_object(request.body, name)
    return change


def patched(request: Request, kind: Kind | None, old: Tree, change: Any) -> Tree:
    """Apply a patch to a tree, which is left as it is. Without a kind, a strategic patch merges. Raises Failure (400, 413, 422)."""
    try:
        if request.content_type == JSON_PATCH:
            tree = json_patch(old, change)
        elif request.content_type == STRATEGIC_PATCH and kind is not None:
            tree = strategic_merge_patch(kind, old, change)
        else:
            tree = merge_patch(old, change)
    except PatchError as error:
        raise _unpatchable(error) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("metadata"), dict):
        raise status.bad_request("the patch leaves no object")
    return tree


def _unpatchable(error: PatchError) -> status.Failure:
    if error.status == 422:
        return status.Failure(422, "Invalid", f"the server rejected our request due to an error in our request: {error}")
    if error.status == 413:
        return status.Failure(413, "RequestEntityTooLarge", str(error))
    return status.bad_request(str(error))


# Owners ------------------------------------------------------------------------------------------------------------------


def check_manager(request: Request, options: str) -> None:
    """Refuse a field manager whose name is too long. Raises Failure (422)."""
    if len(request.query.get("fieldManager", "").encode()) > MANAGER_LIMIT:
        raise status.invalid_options(options, too_long(Path("fieldManager"), MANAGER_LIMIT))


def _owner(request: Request, kind: Kind) -> Owner:
    return Owner(request.field_manager, ownership.UPDATE, kind.api_version, request.target.subresource)


async def _updated(kind: Kind, entries: list[ownership.Entry], old: Tree, tree: Tree, owner: Owner) -> Owned:
    """Say whose the fields are after an update. Raises Failure."""
    if kind.versions is None or not ownership_versions.is_needed(entries, kind.api_version):
        return ownership.updated(merge_types.of_kind(kind), entries, old, tree, owner)
    types = conversion.types(kind)
    return await conversion.taken(kind, ownership_versions.updated(types, entries, old, tree, owner))


def _set_owners(tree: Tree, entries: list[ownership.Entry]) -> None:
    if entries:
        tree["metadata"]["managedFields"] = entries
    else:
        tree["metadata"].pop("managedFields", None)


def _owned(request: Request, kind: Kind, tree: Tree, template: Template | None = None) -> Owned:
    """Say whose the fields of a new object are: the writer's, beside what he says himself."""
    entries = ownership.basis(tree["metadata"].pop("managedFields", None), ())
    owner = _owner(request, kind)
    if template is not None:
        return ownership.created_of(entries, template.fields(tree["metadata"]), owner)
    return ownership.created(merge_types.of_kind(kind), entries, tree, owner)


# Steps -------------------------------------------------------------------------------------------------------------------


def _place(request: Request, kind: Kind, metadata: Tree) -> None:
    """Put the object where the path says; it may say the same. Raises Failure (400)."""
    if not kind.namespaced:
        return
    wanted = request.target.namespace
    if not wanted:
        raise status.bad_request("an empty namespace may not be set during creation")
    if metadata.setdefault("namespace", wanted) != wanted:
        raise status.bad_request("the namespace of the provided object does not match the namespace sent on the request")


def _free_name(api: Api, kind: Kind, metadata: Tree) -> str:
    name = ""
    for _ in range(_NAME_TRIES):
        name = generated_name(metadata["generateName"])
        if api.store.latest(keys.key(kind, metadata.get("namespace", ""), name)) is None:
            break
    return name


def _check_new(api: Api, kind: Kind, namespace: str, name: str, waited: bool) -> None:
    """Refuse a new object whose name is taken; after a wait, also one whose namespace has gone. Raises Failure (403, 404, 409)."""
    if waited:
        _check_namespace(api, kind, namespace, name)
    if api.store.latest(keys.key(kind, namespace, name)) is not None:
        raise status.already_exists(kind, name)


def check_latest(api: Api, kind: Kind, old: Tree) -> None:
    """After a wait, see whether the object is still as it was. Raises Overtaken."""
    metadata = old["metadata"]
    latest = latest_tree(api, kind, metadata.get("namespace", ""), metadata["name"])  # in whatever version: only its revision matters
    if latest is None or latest["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
        raise gate.Overtaken


@contextlib.contextmanager
def _abandoned_on_failure(grant: Grant) -> Iterator[None]:
    """Give back what was set aside when the write fails."""
    try:
        yield
    except BaseException:
        grant.abandon()
        raise


def _check_namespace(api: Api, kind: Kind, namespace: str, name: str) -> None:
    """Refuse a new object in a namespace that is not there or is ending. Raises Failure (403, 404)."""
    if not kind.namespaced:
        return
    record = api.store.latest(f"namespaces/{namespace}")
    if record is None:
        raise status.Failure(404, "NotFound", f'namespaces "{namespace}" not found', {"name": namespace, "kind": "namespaces"})
    if b'"deletionTimestamp"' in record.value:
        message = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated", "field": "metadata.namespace"}
        raise status.forbidden(kind, name, message, [cause])


def _check_versions(kind: Kind, metadata: Tree, old: Tree) -> None:
    """Refuse a write that was made from another state or for another object. Raises Failure (409, 422)."""
    name = old["name"]
    version = metadata.get("resourceVersion", "")
    if metadata.get("uid", old["uid"]) != old["uid"]:
        message = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {old['uid']}"
        raise status.conflict(kind, name, message)
    if version not in ("", "0"):
        if version != old["resourceVersion"]:
            raise status.modified(kind, name)
    elif not kind.unconditional_update:
        raise status.invalid(kind, name, [invalid(Path("metadata") / "resourceVersion", 0, "must be specified for an update")])


def _checked(api: Api, request: Request, kind: Kind, tree: Tree, old: Tree | None, subresource: str, *, known: bool = False) -> Grant:
    """Set addresses aside and check the object; of one that is known to be right, its metadata.

    Raises Failure (422); then nothing is set aside.
    """
    grant = api.allocator.begin(kind, tree, old)
    try:
        errors = kind.check_metadata(tree) if known else [*grant.errors, *kind.check(tree, old, subresource)]
        if errors:
            raise status.invalid(kind, tree["metadata"].get("name", ""), errors)
        if not subresource and not known:
            request.warnings += kind.warnings(tree, old)
    except BaseException:
        grant.abandon()
        raise
    return grant


async def _store(
    api: Api, request: Request, kind: Kind, kept: Kept, old: Tree | None, grant: Grant, code: int, template: Template | None = None
) -> Answer:
    """Commit the object; an object that is to go and has nothing left to wait for goes. Answers when it is on disk."""
    row, tree = kept.kind, kept.tree
    with _abandoned_on_failure(grant):
        quotas = api.admission.charge(kind, tree, old)
    if request.dry_run:
        grant.abandon()
        return shapes.one(api, request, kind, kept.answer(encode(tree)), code)
    try:
        transaction = api.store.transaction()
        facts = template.facts if template is not None else None
        value = remove(transaction, row, tree) if is_finished(row, tree) else put(transaction, row, tree, facts)
        for quota in quotas:
            put(transaction, RESOURCE_QUOTA, quota)
        transaction.on_failure.append(grant.abandon)
        transaction.on_success.append(grant.commit)
        written = api.store.commit(transaction)
    except BaseException:
        grant.abandon()
        raise
    await written
    return shapes.one(api, request, kind, kept.answer(value), code)


async def _on_disk(api: Api, tree: Tree) -> None:
    """Wait until a state that is answered without a write of one's own is on disk."""
    await api.store.reached(int(tree["metadata"]["resourceVersion"]))


def is_finished(kind: Kind, tree: Tree) -> bool:
    """Say whether an object that is being deleted has nothing left to wait for: no finalizer, no time to stop."""
    metadata = tree["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if metadata.get("deletionGracePeriodSeconds"):
        return False
    return not (kind.plural == "namespaces" and kind.group == "" and tree.get("spec", {}).get("finalizers"))


async def store_as_is(api: Api, kind: Kind, tree: Tree) -> None:
    """Store an object that this program has changed itself, and wait until it is on disk; one that is finished goes."""
    transaction = api.store.transaction()
    if is_finished(kind, tree):
        remove(transaction, kind, tree)
    else:
        put(transaction, kind, tree)
    await asyncio.shield(api.store.commit(transaction))
