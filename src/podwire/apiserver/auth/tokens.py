"""The tokens of ServiceAccounts: made, verified, remembered.

A token is signed (JWT) and says whose it is, for whom, from when until when, and to which Pod, Secret or Node it is bound; it holds as
long as its ServiceAccount and what it is bound to are there under the same uid. One that is kept in a Secret of type
``kubernetes.io/service-account-token`` is bound to that Secret. That it is there proves nothing: the signature counts, whoever wrote it.

A token that was verified is remembered by its SHA-256 until it expires or one of the objects that it depends on changes in any way, so that
a request costs one look-up; one that was not is not remembered. The store tells of the changes before anybody else sees them.

Source: https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#bound-service-account-tokens
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from podwire.apiserver.auth.jwt import Invalid, Key
from podwire.apiserver.auth.rbac import ACCOUNT_PREFIX, account_groups
from podwire.apiserver.authentication import AUTHENTICATED, User
from podwire.store import Change, Store

ISSUER = "https://kubernetes.default.svc.cluster.local"
_CLAIM = "kubernetes.io"
_EXTRA = "authentication.kubernetes.io/"
_GONE_S = 60  # an object that is being deleted vouches as long after its time
_REMEMBERED = 20_000

Tree = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """What a token is bound to, beside its ServiceAccount: ``kind`` is ``pod``, ``secret`` or ``node``."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Proven:
    """Whom a token proves, for whom it was made, until when (seconds since 1970), and the keys of the objects that it depends on."""

    user: User
    audiences: tuple[str, ...]
    until: float
    depends: tuple[str, ...]


class Tokens:
    """All tokens, kept in step with the store. ``now`` is the time in seconds since 1970."""

    def __init__(self, store: Store, key: Key, now: Callable[[], float], issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.audiences = (issuer,)  # what a token for this API says
        self._key = key
        self._now = now
        self._store = store
        self._proven: dict[bytes, Proven] = {}
        self._depending: dict[str, set[bytes]] = {}  # key of an object -> digests
        for table in ("serviceaccounts", "pods", "secrets", "nodes"):
            store.observe(table, self._changed)

    # Who is it -------------------------------------------------------------------------------------------------------------

    def user(self, token: str) -> User | None:
        """Give whom a token for this API proves; None when it proves nothing."""
        proven = self.proven(token, self.audiences)
        return None if proven is None else proven.user

    def proven(self, token: str, audiences: Sequence[str]) -> Proven | None:
        """Give what a token proves to one of the audiences; None when it proves nothing to them."""
        digest = hashlib.sha256(token.encode("latin-1", "replace")).digest()
        proven = self._proven.get(digest)
        if proven is None or proven.until <= self._now():
            proven = self._signed_token(token)
            if proven is None:
                return None
            self._remember(digest, proven)
        return proven if not set(proven.audiences).isdisjoint(audiences) else None

    def _signed_token(self, token: str) -> Proven | None:
        try:
            claims = self._key.verify(token)
            return self._claimed(claims)
        except (Invalid, KeyError, TypeError, ValueError, AttributeError):  # the claims are whatever was signed
            return None

    def _claimed(self, claims: dict[str, Any]) -> Proven | None:
        """Say whom claims prove, as long as all that they name is there."""
        now = self._now()
        if claims["iss"] != self.issuer or not claims["nbf"] <= now < claims["exp"]:
            return None
        own = claims[_CLAIM]
        namespace, account = own["namespace"], own["serviceaccount"]
        name = account["name"]
        if claims["sub"] != f"{ACCOUNT_PREFIX}{namespace}:{name}":
            return None
        depends = [f"serviceaccounts/{namespace}/{name}"]
        if not account["uid"] or self._alive(depends[0], account["uid"]) is None:
            return None
        for kind, table in (("pod", f"pods/{namespace}/"), ("secret", f"secrets/{namespace}/"), ("node", "nodes/")):
            bound = own.get(kind)
            if bound is None or (kind == "node" and len(depends) > 1):  # of a Pod's token the node is only told
                continue
            depends.append(table + bound["name"])
            if not bound["uid"] or self._alive(depends[-1], bound["uid"]) is None:
                return None
        audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        user = account_user(namespace, name, account["uid"], _extra(claims))
        return Proven(user, tuple(audiences), float(claims["exp"]), tuple(depends))

    def _alive(self, key: str, uid: str) -> Tree | None:
        """Give an object that is there under this uid (``""``: any) and is not past its time."""
        record = self._store.get(key)
        if record is None:
            return None
        tree: Tree = orjson.loads(record.value)
        metadata = tree["metadata"]
        if uid and metadata.get("uid") != uid:
            return None
        deleted = metadata.get("deletionTimestamp")
        if deleted and datetime.fromisoformat(deleted).timestamp() + _GONE_S < self._now():
            return None
        return tree

    # Making ----------------------------------------------------------------------------------------------------------------

    def issue(
        self, namespace: str, account: Tree, audiences: Sequence[str], lasts_s: int, bound: Iterable[Binding] = ()
    ) -> tuple[str, float]:
        """Make a token of a ServiceAccount; give it and the time at which it expires."""
        now = int(self._now())
        metadata = account["metadata"]
        own: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": metadata["name"], "uid": metadata["uid"]}}
        own |= {one.kind: {"name": one.name, "uid": one.uid} for one in bound}
        claims = {
            "aud": list(audiences or self.audiences),
            "exp": now + lasts_s,
            "iat": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            _CLAIM: own,
            "nbf": now,
            "sub": f"{ACCOUNT_PREFIX}{namespace}:{metadata['name']}",
        }
        return self._key.sign(claims), now + lasts_s

    def key_set(self) -> Tree:
        """Give the JSON Web Key Set with which others verify tokens."""
        return {"keys": [self._key.public()]}

    def discovery(self, url: str) -> Tree:
        """Give the OpenID provider's configuration. ``url`` is where this API is reached."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{url}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self._key.public()["alg"]],
        }

    # Remembering -----------------------------------------------------------------------------------------------------------

    def _remember(self, digest: bytes, proven: Proven) -> None:
        self._forget(digest)
        if len(self._proven) >= _REMEMBERED:
            self._forget(next(iter(self._proven)))
        self._proven[digest] = proven
        for key in proven.depends:
            self._depending.setdefault(key, set()).add(digest)

    def _forget(self, digest: bytes) -> None:
        proven = self._proven.pop(digest, None)
        for key in proven.depends if proven is not None else ():
            digests = self._depending[key]
            digests.discard(digest)
            if not digests:
                del self._depending[key]

    def _changed(self, change: Change) -> None:
        for digest in tuple(self._depending.get(change.key, ())):
            self._forget(digest)


def account_user(namespace: str, name: str, uid: str, extra: tuple[tuple[str, tuple[str, ...]], ...] = ()) -> User:
    """Give a ServiceAccount as a user."""
    return User(f"{ACCOUNT_PREFIX}{namespace}:{name}", (*account_groups(namespace), AUTHENTICATED), uid, extra)


def _extra(claims: dict[str, Any]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What a token tells of itself beside the user."""
    found = [(f"{_EXTRA}credential-id", (f"JTI={claims['jti']}",))] if claims.get("jti") else []
    for kind in ("node", "pod"):
        bound = claims[_CLAIM].get(kind)
        if bound is not None:
            found += [(f"{_EXTRA}{kind}-name", (bound["name"],)), (f"{_EXTRA}{kind}-uid", (bound["uid"],))]
    return tuple(sorted(found))


def timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
