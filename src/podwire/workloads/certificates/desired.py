"""Which requests for a certificate are to be signed, which cannot be, and how long one that is settled is kept.

Pure. Three signers are the cluster's: for clients of the API, for kubelets as clients, for kubelets as servers. What each signs is its
table's row; of a request for another nobody here says anything.

Source: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from podwire.objects.certificates import CertificateSigningRequest
from podwire.objects.core import Condition
from podwire.workloads.kinds import Tree

LONGEST: Final = timedelta(days=365)
FAILURE: Final = "SignerValidationFailure"
_BASIC = frozenset({"digital signature", "key encipherment"})
_PENDING_FOR, _SETTLED_FOR = timedelta(hours=24), timedelta(hours=1)
_NODES, _NODE = "system:nodes", "system:node:"


@dataclass(frozen=True, slots=True)
class Signer:
    """``purpose``: the usage that a request must name; beside it it may name the basic ones. ``of_nodes``: for kubelets alone."""

    purpose: str
    of_nodes: bool = False


SIGNERS: Final = {
    "kubernetes.io/kube-apiserver-client": Signer("client auth"),
    "kubernetes.io/kube-apiserver-client-kubelet": Signer("client auth", of_nodes=True),
    "kubernetes.io/kubelet-serving": Signer("server auth", of_nodes=True),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says of whom it is for: common name, organizations, and names of hosts, addresses, others."""

    name: str
    groups: tuple[str, ...]
    hosts: int
    others: int


def is_due(request: CertificateSigningRequest) -> bool:
    """Say whether a request is approved and waits for one of our signers."""
    kinds = _kinds(request)
    return (
        request.spec.signer_name in SIGNERS
        and "Approved" in kinds
        and not kinds & {"Denied", "Failed"}
        and not request.status.certificate
        and request.metadata.deletion_timestamp is None
    )


def refusal(request: CertificateSigningRequest, asked: Asked) -> str:
    """Say why a request cannot be signed; ``""`` when it can."""
    signer, usages = SIGNERS[request.spec.signer_name], frozenset(request.spec.usages)
    if signer.purpose not in usages or not usages <= _BASIC | {signer.purpose}:
        return f"usages did not match {_printed(_BASIC | {signer.purpose})}"
    if not signer.of_nodes:
        return ""
    if asked.groups != (_NODES,):
        return f"organization in CSR must be {_NODES}"
    if not asked.name.startswith(_NODE):
        return f"subject common name must begin with {_NODE}"
    if asked.others or (signer.purpose == "client auth" and asked.hosts):
        return "subjectAltNames of this kind are not allowed"
    if signer.purpose == "server auth" and not asked.hosts:
        return "at least one DNS or IP subjectAltName is required"
    return ""


def _printed(usages: Collection[str]) -> str:
    return f"[{' '.join(sorted(usages))}]"


def duration(request: CertificateSigningRequest) -> timedelta:
    """How long a certificate is to hold."""
    asked_s = request.spec.expiration_seconds
    return LONGEST if asked_s is None else min(timedelta(seconds=asked_s), LONGEST)


def failed(request: CertificateSigningRequest, why: str, now: str) -> Tree:
    """Make the status of a request that cannot be signed."""
    condition = {"type": "Failed", "status": "True", "reason": FAILURE, "message": why, "lastUpdateTime": now, "lastTransitionTime": now}
    return {"conditions": [*(_tree(one) for one in request.status.conditions), condition]}


def _tree(condition: Condition) -> Tree:
    said = {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastUpdateTime": condition.last_update_time,
        "lastTransitionTime": condition.last_transition_time,
    }
    return {key: value for key, value in said.items() if value}


def kept_for(request: CertificateSigningRequest, now: datetime) -> timedelta:
    """How much longer a request is kept: an hour when it is settled, a day while nobody has decided."""
    settled = bool(_kinds(request) & {"Approved", "Denied", "Failed"})
    moments = [one.last_update_time or one.last_transition_time for one in request.status.conditions]
    last = max((moment for moment in moments if moment), default=None) or request.metadata.creation_timestamp
    if not last:
        return _PENDING_FOR
    return datetime.fromisoformat(last) + (_SETTLED_FOR if settled else _PENDING_FOR) - now


def _kinds(request: CertificateSigningRequest) -> set[str]:
    return {one.type for one in request.status.conditions if one.status == "True"}
