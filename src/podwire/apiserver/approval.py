"""The subresource ``approval`` of a CertificateSigningRequest: its conditions are taken, and nothing else (``kubectl certificate``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#approval-rejection-kubectl
"""

from __future__ import annotations

from podwire.apiserver import bodies, reading, status, writing
from podwire.apiserver.answers import Answer, Tree, answer, decode, encode
from podwire.apiserver.api import Api, latest_tree
from podwire.apiserver.auth import guards
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.certificates import conditions, validate_state
from podwire.apiserver.requests import Request


async def get(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to GET: the object. Raises Failure."""
    return await reading.get(api, request, kind)


async def update(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PUT of the object with its conditions. Raises Failure."""
    sent = bodies.of_kind(request, kind)
    bodies.check_schema(request, kind, sent)
    return await _write(api, request, kind, _live(api, request, kind), sent)


async def patch(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to PATCH of them. Raises Failure."""
    change, old = writing.read_patch(request), _live(api, request, kind)
    sent = writing.patched(request, kind, old, change)
    bodies.check_schema(request, kind, sent)
    return await _write(api, request, kind, old, sent)


def _live(api: Api, request: Request, kind: Kind) -> Tree:
    old = latest_tree(api, kind, "", request.target.name)
    if old is None:
        raise status.not_found(kind, request.target.name)
    return old


async def _write(api: Api, request: Request, kind: Kind, old: Tree, sent: Tree) -> Answer:
    metadata = sent.get("metadata", {})
    if metadata.get("resourceVersion", "") not in ("", old["metadata"]["resourceVersion"]) or metadata.get("uid", "") not in (
        "",
        old["metadata"]["uid"],
    ):
        raise status.modified(kind, request.target.name)
    tree = decode(encode(old))
    guards.check_write(api, request.user, kind, tree, old, "approval")
    found = sent.get("status", {}).get("conditions") or []
    before = conditions(old)
    for one in found:
        one.setdefault("lastUpdateTime", api.timestamp())
        if before.get(one.get("type", ""), {}).get("status") != one.get("status"):
            one["lastTransitionTime"] = api.timestamp()
    tree.setdefault("status", {})["conditions"] = found
    if errors := validate_state(tree, old):
        raise status.invalid(kind, request.target.name, errors)
    if tree != old and not request.dry_run:
        await writing.store_as_is(api, kind, tree)
    return answer(tree)
