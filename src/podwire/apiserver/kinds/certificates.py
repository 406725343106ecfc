"""The row of the group certificates.k8s.io: CertificateSigningRequest.

Who asks is written by the server (``requested``), and what is asked stays as it was. Here: the row and its rules. Not here: who may
approve and sign (``../auth/signers.py``), who signs (the controllers).

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from podwire.apiserver.authentication import User
from podwire.apiserver.cells import NONE, age, duration
from podwire.apiserver.kind import AGE, NAME, STATUS, Column, Kind, Subresource, Tree
from podwire.apiserver.validation import FieldError, Path, duplicate, forbidden, invalid, required, unsupported

GROUP = "certificates.k8s.io"
APPROVED, DENIED, FAILED = "Approved", "Denied", "Failed"
_SPEC, _CONDITIONS, _CERTIFICATE = Path("spec"), Path("status") / "conditions", Path("status") / "certificate"
_LEAST_S = 600
_LEGACY = "kubernetes.io/legacy-unknown"
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_PATH = re.compile(r"[A-Za-z0-9]([-\w.:]*[A-Za-z0-9])?", re.ASCII)
_USAGES = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)


def parsed(request: str) -> x509.CertificateSigningRequest | None:
    """Read ``spec.request``: PEM in base64; None for what is none, or not signed with its own key."""
    try:
        text = base64.b64decode(request, validate=True)
        if not text.lstrip().startswith(b"-----BEGIN CERTIFICATE REQUEST-----"):
            return None
        found = x509.load_pem_x509_csr(text)
        is_valid = found.is_signature_valid and found.subject is not None  # what is malformed there shows when it is read
    except (binascii.Error, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return found if is_valid else None


def requested(tree: Tree, user: User) -> None:
    """Write into a new object who asks, whatever it says."""
    spec = tree.setdefault("spec", {})
    for field in ("username", "uid", "groups", "extra"):
        spec.pop(field, None)
    said = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": {key: list(values) for key, values in user.extra}}
    spec |= {field: value for field, value in said.items() if value}


def _keep_spec(tree: Tree, old: Tree) -> None:
    tree.pop("spec", None)
    if "spec" in old:
        tree["spec"] = old["spec"]


def conditions(tree: Tree) -> dict[str, Tree]:
    """Give the conditions of an object by their types."""
    return {one.get("type", ""): one for one in tree.get("status", {}).get("conditions", ())}


def _row(tree: Tree, now: datetime) -> list[Any]:
    metadata, spec, found = tree["metadata"], tree.get("spec", {}), conditions(tree)
    words = [word for word in (APPROVED, DENIED) if word in found][-1:] + [FAILED] * (FAILED in found)
    words += ["Issued"] if tree.get("status", {}).get("certificate") else []
    asked_s = spec.get("expirationSeconds")
    return [
        metadata["name"],
        age(metadata.get("creationTimestamp"), now),
        spec.get("signerName", NONE),
        spec.get("username", ""),
        NONE if asked_s is None else duration(asked_s),
        ",".join(words) or "Pending",
    ]


# Rules -------------------------------------------------------------------------------------------------------------------


def _validate(tree: Tree, old: Tree | None) -> list[FieldError]:
    if old is not None:
        return []  # nothing of it can be changed
    spec = tree.get("spec", {})
    errors: list[FieldError] = []
    if not spec.get("request"):
        errors.append(required(_SPEC / "request"))
    elif parsed(spec["request"]) is None:
        errors.append(invalid(_SPEC / "request", spec["request"], "PEM block type must be CERTIFICATE REQUEST"))
    usages = spec.get("usages", [])
    if not usages:
        errors.append(required(_SPEC / "usages"))
    errors += [unsupported(_SPEC / "usages" @ at, one, _USAGES) for at, one in enumerate(usages) if one not in _USAGES]
    errors += [duplicate(_SPEC / "usages" @ at, one) for at, one in enumerate(usages) if one in usages[:at]]
    lasts_s = spec.get("expirationSeconds")
    if lasts_s is not None and lasts_s < _LEAST_S:
        errors.append(invalid(_SPEC / "expirationSeconds", lasts_s, "may not specify a duration less than 600 seconds (10 minutes)"))
    return errors + _signer_errors(spec.get("signerName", ""))


def _signer_errors(name: str) -> list[FieldError]:
    path = _SPEC / "signerName"
    if not name:
        return [required(path)]
    if name == _LEGACY:
        return [invalid(path, name, f"the legacy signerName is not allowed via this API version: {GROUP}/v1")]
    domain, slash, rest = name.partition("/")
    if not slash or "/" in rest or not _PATH.fullmatch(rest):
        return [invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'")]
    if not _DOMAIN.fullmatch(domain) or len(name) > 571:
        return [invalid(path, name, "should be a domain with at least two segments separated by dots")]
    return []


def validate_state(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of an object whose status or approval is to be stored."""
    found = tree.get("status", {}).get("conditions", [])
    errors: list[FieldError] = []
    for at, one in enumerate(found):
        if _type(one) in map(_type, found[:at]):
            errors.append(duplicate(_CONDITIONS @ at / "type", _type(one)))
        if not one.get("type"):
            errors.append(required(_CONDITIONS @ at / "type"))
        if one.get("type") in (APPROVED, DENIED, FAILED) and one.get("status") != "True":
            errors.append(unsupported(_CONDITIONS @ at / "status", one.get("status", ""), ("True",)))
    kinds = set(map(_type, found))
    if {APPROVED, DENIED} <= kinds:
        errors.append(invalid(_CONDITIONS, DENIED, "Approved and Denied conditions are mutually exclusive"))
    gone = [kind for kind in (APPROVED, DENIED, FAILED) if kind in conditions(old or {}) and kind not in kinds]
    return errors + [forbidden(_CONDITIONS, f"updates may not remove a condition of type {kind}") for kind in gone]


def _validate_status(tree: Tree, old: Tree | None) -> list[FieldError]:
    """A signer's write: it neither approves nor denies, and a certificate that was given stays."""
    before, now = conditions(old or {}), conditions(tree)
    errors = validate_state(tree, old)
    for kind in (APPROVED, DENIED):
        if kind in now and kind not in before:
            errors.append(forbidden(_CONDITIONS, f"updates may not add a condition of type {kind}"))
    given, had = (one.get("status", {}).get("certificate", "") for one in (tree, old or {}))
    if had and given != had:
        errors.append(forbidden(_CERTIFICATE, "updates may not modify a certificate that is set"))
    elif given and not had and not _are_certificates(given):
        errors.append(invalid(_CERTIFICATE, given, "must contain at least one CERTIFICATE PEM block"))
    return errors


def _type(condition: Tree) -> str:
    kind: str = condition.get("type", "")
    return kind


def _are_certificates(text: str) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(base64.b64decode(text, validate=True)))
    except (binascii.Error, ValueError):
        return False


SIGNING_REQUEST = Kind(
    GROUP,
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    False,
    "io.k8s.api.certificates.v1.CertificateSigningRequest",
    short_names=("csr",),
    subresources=(Subresource("approval"), STATUS),
    columns=(
        NAME,
        AGE,
        Column("SignerName", description="Who is to sign."),
        Column("Requestor", description="Who asks."),
        Column("RequestedDuration", description="For how long."),
        Column("Condition", description="What has become of it."),
    ),
    row=_row,
    selectable_fields={"spec.signerName": lambda tree: str(tree.get("spec", {}).get("signerName", ""))},
    prepare_update=_keep_spec,
    validate=_validate,
    validate_status=_validate_status,
    generations=False,
)

KINDS = (SIGNING_REQUEST,)
