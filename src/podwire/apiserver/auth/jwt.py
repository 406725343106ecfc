"""JSON Web Tokens of one kind: signed with ECDSA over P-256 and SHA-256 (ES256), by one key.

There is no choice of algorithm, so none can be confused: what does not say ES256, or names another key, is no token of ours. Here: bytes
and signatures. Not here: what the claims mean (``tokens.py``).

Source: RFC 7515, RFC 7517, RFC 7518 section 3.4
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

ALGORITHM = "ES256"
_HALF = 32  # bytes of each of the two numbers of a signature, and of a coordinate
LIMIT = 16 * 1024  # letters of a token; a longer one is not looked at
_ECDSA = ec.ECDSA(hashes.SHA256())


class Invalid(ValueError):
    """Not a token that this key has signed."""


class Key:
    """A private key, and what is known of it in public. ``kid`` is made of the key, so that a new key has a new name."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        if not isinstance(private.curve, ec.SECP256R1):
            raise ValueError(f"the key of the service accounts must be on the curve P-256, not {private.curve.name}")  # noqa: TRY004
        self._private = private
        self._public = private.public_key()
        public = self._public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.kid = _encoded(hashlib.sha256(public).digest())
        self._header = _encoded(orjson.dumps({"alg": ALGORITHM, "kid": self.kid}))

    @classmethod
    def fresh(cls) -> Key:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, path: str) -> Key:
        """Read a private key, PEM. Raises OSError, ValueError."""
        with open(path, "rb") as stream:
            private = serialization.load_pem_private_key(stream.read(), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{path}: an elliptic-curve key was expected")  # noqa: TRY004 (what a file holds)
        return cls(private)

    def sign(self, claims: dict[str, Any]) -> str:
        """Make a token."""
        signed = f"{self._header}.{_encoded(orjson.dumps(claims))}"
        first, second = decode_dss_signature(self._private.sign(signed.encode(), _ECDSA))
        return f"{signed}.{_encoded(first.to_bytes(_HALF, 'big') + second.to_bytes(_HALF, 'big'))}"

    def verify(self, token: str) -> dict[str, Any]:
        """Give the claims of a token of this key. Raises Invalid."""
        if len(token) > LIMIT:
            raise Invalid("too long")
        parts = token.split(".")
        if len(parts) != 3:
            raise Invalid("not three parts")
        header = _object(parts[0])
        if header.get("alg") != ALGORITHM or header.get("kid", self.kid) != self.kid or "crit" in header:
            raise Invalid("not of this key")
        signature = _decoded(parts[2])
        if len(signature) != 2 * _HALF:
            raise Invalid("no signature")
        pair = encode_dss_signature(int.from_bytes(signature[:_HALF], "big"), int.from_bytes(signature[_HALF:], "big"))
        try:
            self._public.verify(pair, f"{parts[0]}.{parts[1]}".encode(), _ECDSA)
        except InvalidSignature:
            raise Invalid("wrong signature") from None
        return _object(parts[1])

    def public(self) -> dict[str, str]:
        """Give the public key as a JSON Web Key."""
        numbers = self._public.public_numbers()
        x, y = (_encoded(number.to_bytes(_HALF, "big")) for number in (numbers.x, numbers.y))
        return {"use": "sig", "kty": "EC", "kid": self.kid, "crv": "P-256", "alg": ALGORITHM, "x": x, "y": y}


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("not base64") from None


def _object(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(_decoded(text))
    except orjson.JSONDecodeError:
        raise Invalid("not JSON") from None
    if not isinstance(found, dict):
        raise Invalid("no object")
    return found
