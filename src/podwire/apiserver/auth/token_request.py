"""TokenRequest: a token of a ServiceAccount for a time, on demand (``kubectl create token``, a node for its Pods).

Here: reading the question and what a token may be bound to. Not here: tokens (``tokens.py``), what nodes may (``restriction.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podwire.apiserver import bodies, status
from podwire.apiserver.answers import Answer, Tree, answer, decode
from podwire.apiserver.auth import restriction
from podwire.apiserver.auth.tokens import Binding, timestamp
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import FieldError, Path, invalid

if TYPE_CHECKING:
    from podwire.apiserver.api import Api

_REQUEST = Kind(
    "authentication.k8s.io", "v1", "tokenrequests", "TokenRequest", True, "io.k8s.api.authentication.v1.TokenRequest", verbs=("create",)
)
_DEFAULT_S, _LEAST_S, _MOST_S = 3600, 600, 1 << 32
_SPEC = Path("spec")


async def create(api: Api, request: Request, kind: Kind) -> Answer:
    """Answer to POST of a TokenRequest. Raises Failure (400, 403, 404, 409, 422)."""
    tree = bodies.of_kind(request, _REQUEST)
    bodies.check_schema(request, _REQUEST, tree)
    namespace, name = request.target.namespace, request.target.name
    metadata, spec = tree["metadata"], tree.setdefault("spec", {})
    for field, wanted in (("name", name), ("namespace", namespace)):
        if metadata.setdefault(field, wanted) != wanted:
            what = "service account name" if field == "name" else "namespace"
            raise status.bad_request(f"the {field} of the provided object does not match the {what} sent on the request")
    record = api.store.get(f"serviceaccounts/{namespace}/{name}")
    if record is None:
        raise status.not_found(kind, name)
    account = decode(record.value)
    sent = {**spec}
    lasts_s = spec.setdefault("expirationSeconds", _DEFAULT_S)
    audiences = spec["audiences"] = spec.get("audiences") or list(api.tokens.audiences)
    if errors := _errors(lasts_s):
        raise status.invalid(_REQUEST, name, errors)
    restriction.check_token(api.authorizer, request.user, namespace, name, sent, api.store)
    bound = _bound(api, namespace, name, spec.get("boundObjectRef"))
    token, until = api.tokens.issue(namespace, account, audiences, lasts_s, bound)
    tree["status"] = {"token": token, "expirationTimestamp": timestamp(until)}
    metadata["creationTimestamp"] = api.timestamp()
    return answer(tree, 201)


def _errors(lasts_s: int) -> list[FieldError]:
    path = _SPEC / "expirationSeconds"
    if lasts_s < _LEAST_S:
        return [invalid(path, lasts_s, "may not specify a duration less than 10 minutes")]
    if lasts_s > _MOST_S:
        return [invalid(path, lasts_s, "may not specify a duration larger than 2^32 seconds")]
    return []


def _bound(api: Api, namespace: str, account: str, reference: Tree | None) -> list[Binding]:
    """Find what a token is to be bound to; a Pod's node comes with it. Raises Failure (400, 404, 409)."""
    if reference is None:
        return []
    version, kind, name = reference.get("apiVersion", ""), reference.get("kind", ""), reference.get("name", "")
    if version != "v1" or kind not in ("Pod", "Secret", "Node"):
        group, _, version = version.rpartition("/")
        raise status.bad_request(f"cannot bind token to object of type {group}/{version}, Kind={kind}")
    row = api.registry.find_kind("v1", kind)
    assert row is not None
    record = api.store.get(f"{row.plural}/{name}" if kind == "Node" else f"{row.plural}/{namespace}/{name}")
    if record is None:
        raise status.not_found(row, name)
    tree = decode(record.value)
    uid = tree["metadata"]["uid"]
    if reference.get("uid") and reference["uid"] != uid:
        message = f"{restriction.other_uid(reference['uid'])}"
        raise status.Failure(409, "Conflict", f'Operation cannot be fulfilled on {kind} "{name}": {message}', {"name": name, "kind": kind})
    bound = [Binding(kind.lower(), name, uid)]
    if kind == "Pod":
        if (tree["spec"].get("serviceAccountName") or "default") != account:
            message = f'cannot bind token for serviceaccount "{account}" to pod running with different serviceaccount name.'
            raise status.bad_request(message)
        node = api.store.get(f"nodes/{tree['spec'].get('nodeName', '')}")
        if node is not None:
            metadata = decode(node.value)["metadata"]
            bound.append(Binding("node", metadata["name"], metadata["uid"]))
    return bound
