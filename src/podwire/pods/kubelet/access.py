"""Who may ask a kubelet: the API server by its certificate, anybody else if the API says so.

A certificate of the cluster's CA names a user; so does a bearer token, which the API reviews (TokenReview). The API server's own
identity may do everything; for another user the API is asked (SubjectAccessReview) whether they may do to the node's subresource what
the request does. Anonymous requests are refused. Answers are remembered for a little while, as a kubelet does.

Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from podwire.client.api import Client
from podwire.client.errors import ApiError, Unreachable
from podwire.pods.kubelet.upgrade import Refused

API_SERVER: Final = "kube-apiserver-kubelet-client"
_VERBS: Final = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCES: Final = {"stats": "stats", "metrics": "metrics", "logs": "log", "spec": "spec", "checkpoint": "checkpoint"}
_FINE: Final = {"healthz": "healthz", "configz": "configz", "pods": "pods", "runningpods": "pods"}  # "proxy" allows these, too
_REMEMBERED_S: Final = 30.0
_MOST: Final = 1000

Tree = dict[str, Any]


@dataclass(frozen=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""


def certificate_user(certificate: Mapping[str, Any] | None) -> User | None:
    """The user whom a certificate names: its common name, and its organizations as groups."""
    if not certificate:
        return None
    pairs = [pair for relative in certificate.get("subject", ()) for pair in relative]
    name = next((value for key, value in pairs if key == "commonName"), "")
    groups = tuple(value for key, value in pairs if key == "organizationName")
    return User(name, (*groups, "system:authenticated")) if name else None


def attributes(method: str, path: str) -> tuple[str, tuple[str, ...]]:
    """The verb, and the node's subresources of which one must be allowed."""
    first = path.strip("/").split("/")[0]
    if first in _SUBRESOURCES:
        return _VERBS.get(method, ""), (_SUBRESOURCES[first],)
    if first in _FINE:
        return _VERBS.get(method, ""), (_FINE[first], "proxy")
    return _VERBS.get(method, ""), ("proxy",)


class Access:
    """Asks the API, and remembers."""

    def __init__(self, client: Client, node: str) -> None:
        self._client, self._node = client, node
        self._known: dict[tuple[Any, ...], tuple[float, Any]] = {}

    async def check(self, method: str, path: str, certificate: Mapping[str, Any] | None, authorization: str) -> None:
        """Raises Refused (401, 403)."""
        user = certificate_user(certificate)
        if user is None and authorization.lower().startswith("bearer "):
            user = await self._reviewed(authorization[7:].strip())
        if user is None:
            raise Refused(401, "Unauthorized")
        if user.name == API_SERVER:
            return
        verb, subresources = attributes(method, path)
        for subresource in subresources:
            if await self._allowed(user, verb, subresource):
                return
        raise Refused(403, f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(subresources)}])")

    async def _reviewed(self, token: str) -> User | None:
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        state = await self._ask(("token", token), "authentication.k8s.io/v1/tokenreviews", body)
        if not state.get("authenticated"):
            return None
        user = state.get("user", {})
        return User(user.get("username", ""), tuple(user.get("groups", ())), user.get("uid", ""))

    async def _allowed(self, user: User, verb: str, subresource: str) -> bool:
        asked = {"verb": verb, "resource": "nodes", "subresource": subresource, "name": self._node}
        spec = {"user": user.name, "groups": list(user.groups), "uid": user.uid, "resourceAttributes": asked}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        state = await self._ask((user, verb, subresource), "authorization.k8s.io/v1/subjectaccessreviews", body)
        return bool(state.get("allowed"))

    async def _ask(self, key: tuple[Any, ...], path: str, body: Tree) -> Tree:
        now = time.monotonic()
        if key in self._known and self._known[key][0] > now:
            found: Tree = self._known[key][1]
            return found
        try:
            answer: Tree = msgspec.json.decode(await self._client.request("POST", f"/apis/{path}", body))
        except (ApiError, Unreachable):
            return {}
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        state: Tree = answer.get("status", {})
        self._known[key] = now + _REMEMBERED_S, state
        return state
