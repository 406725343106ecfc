"""Who sends a request.

Two proofs are taken: a client certificate (its common name is the user, its organizations are the groups) and a bearer token of a
ServiceAccount (``auth/tokens.py``). A request without either is anonymous; what anonymous may see is for authorization to say. A proof that
is sent and is wrong is refused (401), never ignored. TLS lets through only certificates of our authority, of whatever time; whether it is
their time is seen with each request, so that a connection outlives nobody's certificate.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/ and k8s.io/apiserver/pkg/authentication/request/websocket
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody, as authorization sees them. ``extra`` is what their proof tells beside: keys with their values."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


_PROTOCOL = b"base64url.bearer.authorization.k8s.io."

ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))


@dataclass(frozen=True, slots=True)
class Certified:
    """Whom a client certificate names, and its time (seconds since 1970)."""

    user: User
    since: float
    until: float


def certified(certificate: Mapping[str, Any] | None) -> Certified | None:
    """Read a peer certificate that ``ssl`` has verified but for its time; None without one, or without a name in it."""
    if not certificate:
        return None
    name, groups = "", []
    for relative in certificate.get("subject", ()):
        for key, value in relative:
            if key == "commonName":
                name = value
            elif key == "organizationName":
                groups.append(value)
    since, until = (float(ssl.cert_time_to_seconds(certificate[when])) for when in ("notBefore", "notAfter"))
    return Certified(User(name, (*groups, AUTHENTICATED)), since, until) if name else None


def bearer(header: bytes) -> str | None:
    """Read a token from an ``Authorization`` header; None when it holds none."""
    scheme, _, token = header.decode("latin-1").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def protocols_token(header: bytes) -> tuple[str, bytes] | None:
    """Read the token that a browser puts among the protocols of a WebSocket, since it sends no ``Authorization``; with the others.

    None when there is none. Raises ValueError for what cannot be read, for more than one, and for one without another protocol beside it.
    """
    words = [word.strip() for word in header.split(b",")]
    found = [word for word in words if word.startswith(_PROTOCOL)]
    if not found:
        return None
    rest = [word for word in words if word and not word.startswith(_PROTOCOL)]
    if len(found) > 1 or not rest:
        raise ValueError("one token, and one protocol beside it, at least")
    text = found[0].removeprefix(_PROTOCOL)
    token = base64.b64decode(text + b"=" * (-len(text) % 4), b"-_", validate=True).decode()
    return token, b", ".join(rest)
