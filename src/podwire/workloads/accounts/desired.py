"""The service account ``default`` and the ConfigMap ``kube-root-ca.crt`` of each namespace, and the token that belongs to each account.

Pure: the random token is a parameter. A token is opaque text in a Secret of type ``kubernetes.io/service-account-token``, named
after the account; the API server knows a caller by it, and a node puts the Secret's three values into the Pod's containers.

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


def secret_name(account: str) -> str:
    """Give the name of an account's Secret. A Secret's name may not be longer than an account's."""
    return f"{account[:247]}-token"


def belongs(secret: Secret, account: ServiceAccount) -> bool:
    """Say whether a Secret is the token of this account, and not of one of that name that was there before."""
    return secret.type == TOKEN_TYPE and secret.metadata.annotations.get(ACCOUNT_UID) == account.metadata.uid


def is_complete(secret: Secret, authority: bytes) -> bool:
    """Say whether the Secret holds all that a Pod needs, with the certificate authority of today."""
    data = secret.data
    return bool(data.get("token")) and bool(data.get("namespace")) and data.get("ca.crt", "") == _text(authority)


def token_secret(account: ServiceAccount, token: str, authority: bytes) -> Tree:
    """Make the Secret of an account. ``authority``: the API server's CA certificate, PEM."""
    return {
        "metadata": {
            "name": secret_name(account.name),
            "namespace": account.namespace,
            "annotations": {ACCOUNT_NAME: account.name, ACCOUNT_UID: account.metadata.uid},
        },
        "type": TOKEN_TYPE,
        "data": {"ca.crt": _text(authority), "namespace": _text(account.namespace.encode()), "token": _text(token.encode())},
    }


def completion(secret: Secret, account: ServiceAccount, token: str, authority: bytes) -> Tree:
    """Make the patch that completes a Secret; a token that is there stays."""
    whole: Tree = token_secret(account, token, authority)["data"]
    if secret.data.get("token"):
        whole["token"] = secret.data["token"]
    return {"data": whole}


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
