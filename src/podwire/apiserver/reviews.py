"""Questions to the API that store nothing: who am I, who is this token, may I, may they.

Here: reading the question and putting it to authentication and authorization. Not here: their answers.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access and
https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/
"""

from __future__ import annotations

from collections.abc import Callable

from podwire.apiserver import bodies, status
from podwire.apiserver.answers import Answer, Tree, answer
from podwire.apiserver.api import Api
from podwire.apiserver.auth import nodes
from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.authentication import User
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds import reviews as rows
from podwire.apiserver.requests import Request
from podwire.apiserver.selectors import field_terms
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


# Who ---------------------------------------------------------------------------------------------------------------------


def _described(user: User) -> Tree:
    described: Tree = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        described["uid"] = user.uid
    if user.extra:
        described["extra"] = {key: list(values) for key, values in user.extra}
    return described


def _self_subject(_api: Api, request: Request, _tree: Tree) -> Tree:
    return {"userInfo": _described(request.user)}


def _token(api: Api, _request: Request, tree: Tree) -> Tree:
    spec = tree.get("spec", {})
    token = spec.get("token", "")
    if not token:
        raise status.bad_request("token is required for TokenReview in authentication")
    asked = spec.get("audiences") or list(api.tokens.audiences)
    proven = api.tokens.proven(token, asked)
    if proven is None:
        return {"user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": _described(proven.user), "audiences": [one for one in asked if one in proven.audiences]}


# May they ----------------------------------------------------------------------------------------------------------------


def _own_access(api: Api, request: Request, tree: Tree) -> Tree:
    return _access(api, rows.SELF_ACCESS, tree, request.user, [])


def _their_access(api: Api, _request: Request, tree: Tree) -> Tree:
    return _access_of_another(api, rows.ACCESS, tree)


def _local_access(api: Api, request: Request, tree: Tree) -> Tree:
    asked, namespace = tree.get("spec", {}).get("resourceAttributes", {}).get("namespace", ""), request.target.namespace
    if asked != namespace:
        error = invalid(_SPEC / "resourceAttributes" / "namespace", asked, "must match metadata.namespace")
        raise status.invalid(rows.LOCAL_ACCESS, "", [error])
    return _access_of_another(api, rows.LOCAL_ACCESS, tree)


def _access_of_another(api: Api, kind: Kind, tree: Tree) -> Tree:
    spec = tree.get("spec", {})
    errors = []
    if not spec.get("user") and not spec.get("groups"):
        errors.append(invalid(_SPEC / "user", "", "at least one of user or group must be specified"))
    extra = tuple((key, tuple(values)) for key, values in (spec.get("extra") or {}).items())
    user = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
    return _access(api, kind, tree, user, errors)


def _access(api: Api, kind: Kind, tree: Tree, user: User, errors: list[FieldError]) -> Tree:
    """Say whether a user may do what the question names. Raises Failure (422)."""
    spec = tree.get("spec", {})
    resource, path = (spec.get(key) for key in _ATTRIBUTES)
    if (resource is None) == (path is None):
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        errors.append(invalid(_SPEC / "resourceAttributes", resource, text))
    if errors:
        raise status.invalid(kind, "", errors)
    asked = _of_resource(resource) if resource is not None else Attributes(path.get("verb", "").lower(), path=path.get("path", ""))
    decision = api.authorizer.decide(user, asked)
    return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}


def _of_resource(resource: Tree) -> Attributes:
    plural = "/".join(part for part in (resource.get("resource", ""), resource.get("subresource", "")) if part)
    selector = resource.get("fieldSelector") or {}
    fields = [(field, value) for field, equal, value in field_terms(selector.get("rawSelector", "")) if equal]
    required = (one for one in selector.get("requirements") or () if one.get("operator") == "In" and len(one.get("values") or ()) == 1)
    fields += [(one.get("key", ""), one["values"][0]) for one in required]
    verb, group, namespace, name = (resource.get(key, "") for key in ("verb", "group", "namespace", "name"))
    return Attributes(verb, group, plural, namespace, name, "", tuple(fields))


def _rules(api: Api, request: Request, tree: Tree) -> Tree:
    namespace = tree.get("spec", {}).get("namespace")
    if not namespace:
        raise status.bad_request("no namespace on request")
    user = request.user
    found: Tree = {"resourceRules": [], "nonResourceRules": [], "incomplete": False}
    for rule in api.authorizer.policy.rules(user.name, user.groups, namespace):
        if rule.get("nonResourceURLs"):
            found["nonResourceRules"].append({"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]})
        if rule.get("resources"):
            kept = ("verbs", "apiGroups", "resources", "resourceNames")
            found["resourceRules"].append({field: rule[field] for field in kept if rule.get(field)})
    if nodes.node_name(user.name, user.groups) is not None:
        found |= {"incomplete": True, "evaluationError": "node authorizer does not support user rule resolution"}
    return found


ANSWERS: dict[Kind, Callable[[Api, Request, Tree], Tree]] = {
    rows.SELF_SUBJECT: _self_subject,
    rows.TOKEN: _token,
    rows.LOCAL_ACCESS: _local_access,
    rows.SELF_ACCESS: _own_access,
    rows.SELF_RULES: _rules,
    rows.ACCESS: _their_access,
}
