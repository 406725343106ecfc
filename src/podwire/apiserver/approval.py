"""The subresource ``approval`` of a CertificateSigningRequest: its conditions are taken, and nothing else (``kubectl certificate``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#approval-rejection-kubectl
"""

from __future__ import annotations

from podwire.apiserver.answers import Tree
from podwire.apiserver.api import Api
from podwire.apiserver.auth import guards
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.certificates import conditions, validate_state
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import FieldError


def take(api: Api, request: Request, kind: Kind, tree: Tree, sent: Tree, old: Tree) -> list[FieldError]:
    """Take the conditions that were sent; gives what is wrong with them. Raises Failure (403) for who may not decide."""
    guards.check_write(api, request.user, kind, tree, old, "approval")
    found = sent.get("status", {}).get("conditions") or []
    before = conditions(old)
    for one in found:
        one.setdefault("lastUpdateTime", api.timestamp())
        if before.get(one.get("type", ""), {}).get("status") != one.get("status"):
            one["lastTransitionTime"] = api.timestamp()
    tree.setdefault("status", {})["conditions"] = found
    return validate_state(tree, old)
