"""Who sends a request.

Two proofs are taken: a client certificate (its common name is the user, its organizations are the groups) and a bearer token of a
ServiceAccount (``auth/tokens.py``). A request without either is anonymous; what anonymous may see is for authorization to say. A proof that
is sent and is wrong is refused (401), never ignored. TLS lets through only certificates of our authority, of whatever time; whether it is
their time is seen with each request, so that a connection outlives nobody's certificate.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/
"""

from __future__ import annotations

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
