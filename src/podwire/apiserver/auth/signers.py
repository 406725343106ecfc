"""Who may approve and sign a CertificateSigningRequest: who may ``approve`` or ``sign`` its signer.

A signer is no object: it is the name of a resource ``signers``, alone or with all of its domain (``example.com/*``). Nobody gets a
certificate of an administrator this way. Words are upstream's.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#authorization and
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#certificatesubjectrestriction
"""

from __future__ import annotations

from cryptography.x509.oid import NameOID

from podwire.apiserver import status
from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.auth.authorizer import Authorizer
from podwire.apiserver.auth.bootstrap_roles import MASTERS
from podwire.apiserver.authentication import User
from podwire.apiserver.kind import Kind, Tree
from podwire.apiserver.kinds.certificates import GROUP, parsed

API_CLIENT = "kubernetes.io/kube-apiserver-client"


def check(authorizer: Authorizer, user: User, kind: Kind, tree: Tree, old: Tree | None, part: str) -> None:
    """Refuse a write that is not its writer's to make. ``part`` is the subresource. Raises Failure (403)."""
    if old is None:
        _check_subject(kind, tree)
    elif part == "approval":
        _demand(authorizer, user, kind, old, "approve")
    elif part == "status" and _state(tree) != _state(old):
        _demand(authorizer, user, kind, old, "sign")


def _demand(authorizer: Authorizer, user: User, kind: Kind, old: Tree, verb: str) -> None:
    signer = old.get("spec", {}).get("signerName", "")
    names = (signer, f"{signer.partition('/')[0]}/*")
    if not any(authorizer.allows(user, Attributes(verb, GROUP, "signers", name=name)) for name in names):
        raise status.forbidden(kind, old["metadata"]["name"], f'user not permitted to {verb} requests with signerName "{signer}"')


def _state(tree: Tree) -> tuple[object, object]:
    found = tree.get("status", {})
    return found.get("certificate", ""), found.get("conditions") or []


def _check_subject(kind: Kind, tree: Tree) -> None:
    spec = tree.get("spec", {})
    if spec.get("signerName") != API_CLIENT:
        return
    request = parsed(spec.get("request", ""))
    groups = [] if request is None else [one.value for one in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if MASTERS in groups:
        why = f"use of {API_CLIENT} signer with {MASTERS} group is not allowed"
        raise status.forbidden(kind, tree["metadata"].get("name", ""), why)
