"""Questions to the API that store nothing: who am I, may I.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access
"""

from __future__ import annotations

from collections.abc import Callable

from podwire.apiserver import authorization, bodies, status
from podwire.apiserver.answers import Answer, Tree, answer
from podwire.apiserver.api import Api
from podwire.apiserver.requests import Request

Handler = Callable[[Api, Request], Answer]


def _self_subject(_api: Api, request: Request) -> Answer:
    user = request.user
    info: Tree = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    return answer(
        {"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "status": {"userInfo": info}}, 201
    )


def _access(api: Api, request: Request) -> Answer:
    tree = bodies.tree(request)
    spec = tree.get("spec")
    if not isinstance(spec, dict):
        raise status.bad_request("SelfSubjectAccessReview: spec is not an object")
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(resource, dict):
        words = {key: str(resource.get(key) or "") for key in ("verb", "group", "resource", "subresource", "namespace", "name")}
        plural = f"{words['resource']}/{words['subresource']}" if words["subresource"] else words["resource"]
        asked = authorization.Attributes(words["verb"], words["group"], plural, words["namespace"], words["name"])
        allowed = authorization.allows(request.user, asked, api.node_of)
    elif isinstance(path, dict):
        allowed = authorization.allows_path(request.user, str(path.get("verb") or "get").upper(), str(path.get("path") or ""))
    else:
        raise status.bad_request("SelfSubjectAccessReview: exactly one of resourceAttributes and nonResourceAttributes must be specified")
    return answer(
        {
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "spec": spec,
            "status": {"allowed": allowed},
        },
        201,
    )


def _rules(_api: Api, request: Request) -> Answer:
    rules = [
        {"verbs": sorted(rule.verbs), "apiGroups": sorted(rule.groups), "resources": sorted(rule.resources)}
        for rule in authorization.RULES
        if rule.subject in request.user.groups
    ]
    paths = [{"verbs": ["get"], "nonResourceURLs": [path, f"{path}/*"]} for path in authorization.DISCOVERY_PATHS]
    state = {"resourceRules": rules, "nonResourceRules": paths, "incomplete": False}
    return answer(
        {"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": {}, "status": state}, 201
    )


HANDLERS: dict[tuple[str, str, str], Handler] = {
    ("authentication.k8s.io", "v1", "selfsubjectreviews"): _self_subject,
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"): _access,
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews"): _rules,
}

KINDS = {
    ("authentication.k8s.io", "v1", "selfsubjectreviews"): "SelfSubjectReview",
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("authorization.k8s.io", "v1", "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
}
