"""The service account ``default`` and the ConfigMap ``kube-root-ca.crt`` of each namespace, and tokens in Secrets, for who asks for one.

Pure: the token is a parameter. A Pod's token comes from the API server and lasts as long as the Pod. Who wants one that lasts makes a
Secret of type ``kubernetes.io/service-account-token`` that names an account; it is given a token of the API server's that is bound to the
Secret and has no end that anybody will see, and goes with its account.

Source: https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
"""

from __future__ import annotations

import base64

from podwire.objects.core import ConfigMap, Namespace, Secret, ServiceAccount
from podwire.workloads.kinds import Tree

DEFAULT = "default"
ROOT_CERTIFICATES, CERTIFICATE = "kube-root-ca.crt", "ca.crt"
_TOLD = "kubernetes.io/description"
TOKEN_TYPE = "kubernetes.io/service-account-token"  # noqa: S105 - a type, not a token
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
_LASTS_S = 1 << 32  # the longest that a token may be asked for: 136 years


def needs_default(namespace: Namespace, account: ServiceAccount | None) -> bool:
    return account is None and namespace.metadata.deletion_timestamp is None


def default_account(namespace: str) -> Tree:
    return {"metadata": {"name": DEFAULT, "namespace": namespace}}


def needs_certificates(namespace: Namespace, found: ConfigMap | None, authority: bytes) -> bool:
    """Say whether a namespace lacks the certificates with which its Pods know the API server, or has others."""
    return namespace.metadata.deletion_timestamp is None and (found is None or found.data != {CERTIFICATE: authority.decode()})


def certificates(namespace: str, authority: bytes) -> Tree:
    """Make the ConfigMap that a token volume mounts beside the token. ``authority``: the API server's CA certificate, PEM."""
    told = (
        "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP"
    )
    metadata = {"name": ROOT_CERTIFICATES, "namespace": namespace, "annotations": {_TOLD: f"{told} or kubernetes.default.svc."}}
    return {"metadata": metadata, "data": {CERTIFICATE: authority.decode()}}


def belongs(secret: Secret, account: ServiceAccount) -> bool:
    """Say whether a Secret is for this account, and not for one of that name that was there before."""
    return secret.type == TOKEN_TYPE and secret.metadata.annotations.get(ACCOUNT_UID, "") in ("", account.metadata.uid)


def is_complete(secret: Secret, account: ServiceAccount, authority: bytes) -> bool:
    """Say whether a Secret holds a token and what goes with it, with the certificate authority of today."""
    data, whose = secret.data, secret.metadata.annotations.get(ACCOUNT_UID, "")
    return whose == account.metadata.uid and bool(data.get("token") and data.get("namespace")) and data.get("ca.crt") == _text(authority)


def token_request(secret: Secret) -> Tree:
    """Make the request for a token that lasts as long as a Secret. Without audiences it is for the API server."""
    bound = {"apiVersion": "v1", "kind": "Secret", "name": secret.name, "uid": secret.metadata.uid}
    return {"spec": {"expirationSeconds": _LASTS_S, "boundObjectRef": bound}}


def completion(secret: Secret, account: ServiceAccount, token: str, authority: bytes) -> Tree:
    """Make the patch that completes a Secret; a token that is there stays. ``authority``: the API server's CA certificate, PEM."""
    data = {"ca.crt": _text(authority), "namespace": _text(account.namespace.encode()), "token": _text(token.encode())}
    if secret.data.get("token"):
        data["token"] = secret.data["token"]
    return {"metadata": {"annotations": {ACCOUNT_UID: account.metadata.uid}}, "data": data}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
