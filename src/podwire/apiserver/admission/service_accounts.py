"""ServiceAccount: a Pod's account must be there, and its containers find the account's token in a volume.

The volume is a projected one, as anybody could write it: a token that is renewed, the cluster's certificate, the namespace. It is mounted
where clients of the API look for it, in each container that has nothing mounted there. Who wants none says so, by
``automountServiceAccountToken: false`` in the Pod or, for all its Pods, in the account.

Here: pure functions on a Pod's spec and an account's bytes. Not here: the store.

Source: https://kubernetes.io/docs/concepts/security/service-accounts/#assign-to-pod and
https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-token-volume
"""

from __future__ import annotations

import zlib
from typing import Any

import orjson

Tree = dict[str, Any]

MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX = "kube-api-access-"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SECONDS = 3607
_MIRROR = "kubernetes.io/config.mirror"
_REFUSED = b'"automountServiceAccountToken":false'  # an object's own field: in a text the quotes would be escaped
_PULLING = b'"imagePullSecrets"'


def name(spec: Tree) -> Any:
    """Give the account that a Pod names; ``default`` when it names none."""
    return spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"


def gives_token(spec: Tree, account: bytes | None) -> bool:
    """Say whether a Pod's containers are to find a token. ``account`` is the stored account; None: it is on its way."""
    said = spec.get("automountServiceAccountToken")
    if said is None:
        return account is None or _REFUSED not in account
    return said is not False


def gives_pull_secrets(account: bytes | None) -> bool:
    """Say whether an account has secrets for pulling images, which its Pods get that say none."""
    return account is not None and _PULLING in account


def is_mirror(pod: Tree) -> bool:
    """Say whether a Pod only shows one that a node runs by itself: such a Pod has no account."""
    annotations = pod["metadata"].get("annotations")
    return isinstance(annotations, dict) and _MIRROR in annotations


def fill(spec: Tree, account: bytes | None) -> None:
    """Give a new Pod what its account has for it."""
    if gives_token(spec, account):
        _mount(spec)
    if account is not None and gives_pull_secrets(account) and not spec.get("imagePullSecrets"):
        spec["imagePullSecrets"] = orjson.loads(account)["imagePullSecrets"]


def _mount(spec: Tree) -> None:
    names = [volume.get("name", "") for volume in spec.get("volumes", ())]
    own = next((one for one in names if one.startswith(_PREFIX)), "")
    volume = own or _fresh_name(spec, names)
    mounted = False
    for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
        mounts = container.setdefault("volumeMounts", [])
        if all(mount.get("mountPath") != MOUNT_PATH for mount in mounts):
            mounts.append({"name": volume, "readOnly": True, "mountPath": MOUNT_PATH})
            mounted = True
    if mounted and not own:
        spec.setdefault("volumes", []).append({"name": volume, "projected": _projected()})


def _fresh_name(spec: Tree, names: list[str]) -> str:
    """Give a name that follows from what the spec says: Pods of one template stay alike."""
    number = zlib.crc32(orjson.dumps(spec, option=orjson.OPT_SORT_KEYS))
    while True:
        rest, letters = number, ""
        for _ in range(5):
            rest, letter = divmod(rest, len(_LETTERS))
            letters += _LETTERS[letter]
        if _PREFIX + letters not in names:
            return _PREFIX + letters
        number += 1


def _projected() -> Tree:
    return {
        "defaultMode": 0o644,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": _SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ],
    }
