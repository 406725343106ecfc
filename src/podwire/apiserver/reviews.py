"""Questions to the API that store nothing: who am I, who is this token, may I, may they.

Here: reading the question and putting it to authentication and authorization. Not here: their answers.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access and
https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/
"""

from __future__ import annotations

from collections.abc import Callable

from podwire.apiserver import authorization, bodies, status
from podwire.apiserver.answers import Answer, Tree, answer
from podwire.apiserver.api import Api
from podwire.apiserver.authentication import User
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds import reviews as rows
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import FieldError, Path, invalid

_ATTRIBUTES = ("resourceAttributes", "nonResourceAttributes")
_SPEC = Path("spec")


def respond(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to a question. Raises Failure (400, 415, 422)."""
    tree = bodies.of_kind(request, kind)
    bodies.check_schema(request, kind, tree)
    namespace = request.target.namespace
    if kind.namespaced and tree["metadata"].setdefault("namespace", namespace) != namespace:
        raise status.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    tree["status"] = ANSWERS[kind](api, request, tree)
    return answer(tree, 201)


def _described(user: User) -> Tree:
    return {"username": user.name, "groups": list(user.groups), **({"uid": user.uid} if user.uid else {})}


def _self_subject(_api: Api, request: Request, _tree: Tree) -> Tree:
    return {"userInfo": _described(request.user)}


def _own_access(api: Api, request: Request, tree: Tree) -> Tree:
    return _access(api, rows.SELF_ACCESS, tree, request.user, [])


def _their_access(api: Api, _request: Request, tree: Tree) -> Tree:
    spec = tree.get("spec", {})
    errors = []
    if not spec.get("user") and not spec.get("groups"):
        errors.append(invalid(_SPEC / "user", "", "at least one of user or group must be specified"))
    user = User(spec.get("user", ""), tuple(spec.get("groups", ())), spec.get("uid", ""))
    return _access(api, rows.ACCESS, tree, user, errors)


def _local_access(api: Api, request: Request, tree: Tree) -> Tree:
    asked, namespace = tree.get("spec", {}).get("resourceAttributes", {}).get("namespace", ""), request.target.namespace
    if asked != namespace:
        error = invalid(_SPEC / "resourceAttributes" / "namespace", asked, "must match metadata.namespace")
        raise status.invalid(rows.LOCAL_ACCESS, "", [error])
    return _their_access(api, request, tree)


def _access(api: Api, kind: Kind, tree: Tree, user: User, errors: list[FieldError]) -> Tree:
    """Say whether a user may do what the question names. Raises Failure (422)."""
    spec = tree.get("spec", {})
    resource, path = (spec.get(key) for key in _ATTRIBUTES)
    if (resource is None) == (path is None):
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        errors.append(invalid(_SPEC / "resourceAttributes", resource, text))
    if errors:
        raise status.invalid(kind, "", errors)
    if resource is not None:
        plural = "/".join(part for part in (resource.get("resource", ""), resource.get("subresource", "")) if part)
        verb, group, namespace, name = (resource.get(key, "") for key in ("verb", "group", "namespace", "name"))
        asked = authorization.Attributes(verb, group, plural, namespace, name)
        return {"allowed": authorization.allows(user, asked, api.node_of)}
    assert path is not None
    return {"allowed": authorization.allows_path(user, path.get("verb", "").upper(), path.get("path", ""))}


def _rules(_api: Api, request: Request, tree: Tree) -> Tree:
    if not tree.get("spec", {}).get("namespace"):
        raise status.bad_request("no namespace on request")
    rules = [
        {"verbs": sorted(rule.verbs), "apiGroups": sorted(rule.groups), "resources": sorted(rule.resources)}
        for rule in authorization.RULES
        if rule.subject in request.user.groups
    ]
    paths = [{"verbs": ["get"], "nonResourceURLs": [path, f"{path}/*"]} for path in authorization.DISCOVERY_PATHS]
    return {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}


ANSWERS: dict[Kind, Callable[[Api, Request, Tree], Tree]] = {
    rows.SELF_SUBJECT: _self_subject,
    rows.LOCAL_ACCESS: _local_access,
    rows.SELF_ACCESS: _own_access,
    rows.SELF_RULES: _rules,
    rows.ACCESS: _their_access,
}
