"""Who sends a request.

Two proofs are taken: a client certificate (its common name is the user, its organizations are the groups) and a bearer token, which is
the opaque token of a ServiceAccount, kept in a Secret of type ``kubernetes.io/service-account-token``. A request without either is
anonymous; what anonymous may see is for ``authorization`` to say. A proof that is sent and is wrong is refused (401), never ignored.

Who may do so can ask to be taken for another (``impersonated``); that, too, is granted or refused, never ignored.

Tokens are indexed by their SHA-256, so that finding one takes the same time whatever is guessed. The index follows the store: a Secret
that goes takes its token with it, and so does its ServiceAccount.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from podwire.store import Change, Record, Store

SERVICE_ACCOUNT_TOKEN = "kubernetes.io/service-account-token"  # noqa: S105
ACCOUNT_NAME = "kubernetes.io/service-account.name"
ACCOUNT_UID = "kubernetes.io/service-account.uid"
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"


_IMPERSONATE = b"impersonate-"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, as authorization sees them."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""


ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


def certificate_user(certificate: Mapping[str, object] | None) -> User | None:
    """Make a user of a verified peer certificate as ``ssl`` gives it; None without one, or without a name in it."""
    if not certificate:
        return None
    name, groups = "", []
    for relative in certificate.get("subject", ()):  # type: ignore[attr-defined]
        for key, value in relative:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    return User(name, (*groups, AUTHENTICATED)) if name else None


def impersonated(headers: Iterable[tuple[bytes, bytes]]) -> User | None:
    """Read whom a request wants to be taken for (``kubectl --as``); None when it is for its sender. A group without a user has no name.

    Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
    """
    name, uid, groups, asked = "", "", [], False
    for key, value in headers:
        if not key.startswith(_IMPERSONATE):
            continue
        asked, text = True, value.decode("latin-1")
        match key:
            case b"impersonate-user":
                name = text
            case b"impersonate-group":
                groups.append(text)
            case b"impersonate-uid":
                uid = text
    if not asked:
        return None
    if name.startswith("system:serviceaccount:") and not groups:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{name.split(':')[2]}"]
    if name == ANONYMOUS.name:
        return ANONYMOUS
    return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))), uid)


class Tokens:
    """The tokens of all ServiceAccounts, kept in step with the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._accounts: dict[bytes, tuple[str, str, str]] = {}  # digest -> namespace, ServiceAccount, its uid or ""
        self._digests: dict[str, bytes] = {}  # key of the Secret -> digest
        for record in store.range("secrets/"):
            self._learn(record)
        store.observe("secrets", self._changed)

    def user(self, token: str) -> User | None:
        """Give the ServiceAccount that a token proves, as a user; None when it proves nothing."""
        found = self._accounts.get(_digest(token))
        if found is None:
            return None
        namespace, name, uid = found
        record = self._store.get(f"serviceaccounts/{namespace}/{name}")
        if record is None:
            return None
        actual = orjson.loads(record.value)["metadata"].get("uid", "")
        if uid and uid != actual:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(f"system:serviceaccount:{namespace}:{name}", groups, actual)

    def _changed(self, change: Change) -> None:
        digest = self._digests.pop(change.key, None)
        if digest is not None:
            self._accounts.pop(digest, None)
        if change.record is not None:
            self._learn(change.record)

    def _learn(self, record: Record) -> None:
        if SERVICE_ACCOUNT_TOKEN.encode() not in record.value:
            return
        tree = orjson.loads(record.value)
        annotations = tree["metadata"].get("annotations") or {}
        encoded = (tree.get("data") or {}).get("token", "")
        if tree.get("type") != SERVICE_ACCOUNT_TOKEN or ACCOUNT_NAME not in annotations or not encoded:
            return
        try:
            token = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            return
        digest = hashlib.sha256(token).digest()
        self._digests[record.key] = digest
        self._accounts[digest] = (tree["metadata"]["namespace"], annotations[ACCOUNT_NAME], annotations.get(ACCOUNT_UID, ""))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("latin-1", "replace")).digest()


def bearer(header: bytes) -> str | None:
    """Read a token from an ``Authorization`` header; None when it holds none."""
    scheme, _, token = header.decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
