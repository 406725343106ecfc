"""Tokens of ServiceAccounts: what they prove, how long, and everything that is no token though it looks like one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.api import Api, put
from podwire.apiserver.auth.jwt import Invalid, Key
from podwire.apiserver.auth.tokens import ISSUER, Binding
from podwire.store import Store

Tree = dict[str, Any]
PRIVATE = ec.generate_private_key(ec.SECP256R1())


class Clock:
    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def api(tmp_path: Path, clock: Clock) -> AsyncIterator[Api]:
    api = Api(Store.open(tmp_path / "db"), Allocator(Ranges(), random.Random(0)), clock=clock, token_key=Key(PRIVATE))
    for plural, namespace, name, uid in (
        ("serviceaccounts", "shop", "web", "account"),
        ("pods", "shop", "web-1", "pod"),
        ("secrets", "shop", "bound", "secret"),
        ("nodes", "", "n1", "node"),
    ):
        await store(api, plural, namespace, name, uid)
    yield api
    await api.store.close()


async def store(api: Api, plural: str, namespace: str, name: str, uid: str, **more: Any) -> None:
    kind = api.registry.find("", "v1", plural)
    assert kind is not None
    metadata = {"name": name, "uid": uid, **({"namespace": namespace} if namespace else {}), **more.pop("metadata", {})}
    transaction = api.store.transaction()
    put(transaction, kind, {"apiVersion": "v1", "kind": kind.kind, "metadata": metadata, "spec": {}, **more})
    await api.store.commit(transaction)


async def delete(api: Api, key: str) -> None:
    transaction = api.store.transaction()
    transaction.delete(key, b"{}")
    await api.store.commit(transaction)


def issue(api: Api, *bound: Binding, lasts_s: int = 3600, audiences: tuple[str, ...] = ()) -> str:
    account = {"metadata": {"name": "web", "uid": "account"}}
    return api.tokens.issue("shop", account, audiences, lasts_s, bound)[0]


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read(token: str) -> tuple[Tree, Tree]:
    header, claims, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(one + "==")) for one in (header, claims))  # type: ignore[return-value]


def signed(header: Tree, claims: Any, key: ec.EllipticCurvePrivateKey = PRIVATE) -> str:
    """A token as somebody would make it who has a key."""
    text = f"{part(header)}.{part(claims)}"
    first, second = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{part(first.to_bytes(32, 'big') + second.to_bytes(32, 'big'))}"


async def test_a_token_proves_its_account(api: Api) -> None:
    token = issue(api, Binding("pod", "web-1", "pod"), Binding("node", "n1", "node"))
    user = api.tokens.user(token)
    assert user is not None
    assert (user.name, user.uid) == ("system:serviceaccount:shop:web", "account")
    assert user.groups == ("system:serviceaccounts", "system:serviceaccounts:shop", "system:authenticated")
    extra = dict(user.extra)
    assert extra["authentication.kubernetes.io/pod-name"] == ("web-1",)
    assert extra["authentication.kubernetes.io/node-uid"] == ("node",)
    header, claims = read(token)
    assert header == {"alg": "ES256", "kid": Key(PRIVATE).kid}
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, [ISSUER], "system:serviceaccount:shop:web")
    assert claims["exp"] - claims["iat"] == 3600
    assert claims["nbf"] == claims["iat"]
    assert claims["kubernetes.io"]["pod"] == {"name": "web-1", "uid": "pod"}
    assert extra["authentication.kubernetes.io/credential-id"] == (f"JTI={claims['jti']}",)
    assert api.tokens.user(token) == user  # remembered


async def test_others_verify_it_with_the_published_key(api: Api) -> None:
    [key] = api.tokens.key_set()["keys"]
    numbers = [int.from_bytes(base64.urlsafe_b64decode(key[one] + "==")) for one in ("x", "y")]
    public = ec.EllipticCurvePublicNumbers(*numbers, ec.SECP256R1()).public_key()
    encoding = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert public.public_bytes(*encoding) == PRIVATE.public_key().public_bytes(*encoding)
    assert read(issue(api))[0]["kid"] == key["kid"]
    told = api.tokens.discovery("https://10.127.0.2:443")
    assert (told["issuer"], told["jwks_uri"]) == (ISSUER, "https://10.127.0.2:443/openid/v1/jwks")
    assert told["id_token_signing_alg_values_supported"] == ["ES256"]


async def test_time(api: Api, clock: Clock) -> None:
    token = issue(api, lasts_s=600)
    claims = read(token)[1]
    assert api.tokens.user(token) is not None
    clock.moment += timedelta(seconds=599)
    assert api.tokens.user(token) is not None
    clock.moment += timedelta(seconds=1)
    assert api.tokens.user(token) is None  # though it was remembered
    clock.moment -= timedelta(seconds=601)
    header = {"alg": "ES256"}
    assert api.tokens.user(signed(header, {**claims, "nbf": claims["nbf"] + 3600, "exp": claims["exp"] + 3600})) is None
    assert api.tokens.user(signed(header, {key: value for key, value in claims.items() if key != "exp"})) is None
    assert api.tokens.user(signed(header, {**claims, "exp": "9999999999"})) is None


async def test_audiences(api: Api) -> None:
    vault = issue(api, audiences=("vault",))
    assert api.tokens.user(vault) is None
    proven = api.tokens.proven(vault, ["other", "vault"])
    assert proven is not None
    assert proven.audiences == ("vault",)
    assert api.tokens.user(vault) is None  # still: remembered, and for others
    assert api.tokens.proven(issue(api), ["vault"]) is None


@pytest.mark.parametrize(
    ("binding", "key"),
    [
        (Binding("pod", "web-1", "pod"), "pods/shop/web-1"),
        (Binding("secret", "bound", "secret"), "secrets/shop/bound"),
        (Binding("node", "n1", "node"), "nodes/n1"),
        (Binding("pod", "web-1", "pod"), "serviceaccounts/shop/web"),
    ],
)
async def test_a_token_ends_with_what_it_is_bound_to(api: Api, binding: Binding, key: str) -> None:
    token = issue(api, binding)
    assert api.tokens.user(token) is not None
    await delete(api, key)
    assert api.tokens.user(token) is None
    plural, *place = key.split("/")
    namespace, name = place if len(place) == 2 else ("", place[0])
    await store(api, plural, namespace, name, "another")  # of the same name
    assert api.tokens.user(token) is None


async def test_what_is_being_deleted_vouches_for_a_moment(api: Api, clock: Clock) -> None:
    token = issue(api, Binding("pod", "web-1", "pod"))
    await store(api, "pods", "shop", "web-1", "pod", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert api.tokens.user(token) is not None
    clock.moment += timedelta(seconds=61)
    await store(api, "pods", "shop", "web-1", "pod", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": "b"}})
    assert api.tokens.user(token) is None


async def test_forgeries(api: Api) -> None:
    """Nothing that anybody could make without the private key proves anything."""
    token = issue(api)
    header, claims = read(token)
    text, _, signature = token.rpartition(".")
    public = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    with_hmac = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    another = rsa.generate_private_key(65537, 2048)
    pem = another.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    admin = {**claims, "sub": "system:serviceaccount:kube-system:admin"}
    forged = {
        "alg none": f"{part({'alg': 'none'})}.{part(claims)}.",
        "alg None, the real signature": f"{part({'alg': 'None'})}.{part(claims)}.{signature}",
        "no signature": f"{text}.",
        "zeros": f"{text}.{part(bytes(64))}",
        "short": f"{text}.{signature[:-4]}",
        "claims changed": f"{part(header)}.{part(admin)}.{signature}",
        "HS256 with the public key": f"{with_hmac}.{part(hmac.digest(public, with_hmac.encode(), hashlib.sha256))}",
        "another key": signed(header, claims, ec.generate_private_key(ec.SECP256R1())),
        "another kid": signed({**header, "kid": "other"}, claims),
        "a key of its own": signed({**header, "jwk": {"kty": "EC"}, "kid": ""}, claims, ec.generate_private_key(ec.SECP256R1())),
        "critical": signed({**header, "crit": ["exp"]}, claims),
        "a header that is a list": f"{part([])}.{part(claims)}.{signature}",
        "not base64": f"{part(header)}.!!!.{signature}",
        "four parts": f"{token}.{signature}",
        "two parts": text,
        "padded": f"{part(header)}=.{part(claims)}.{signature}",
        "another issuer": signed(header, {**claims, "iss": "https://evil"}),
        "another namespace": signed(header, {**claims, "sub": "system:serviceaccount:kube-system:web"}),
        "no uid": signed(header, {**claims, "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "web", "uid": ""}}}),
        "claims of no shape": signed(header, {**claims, "kubernetes.io": 7}),
        "no claims": signed(header, []),
        "a PEM": pem,
        "long": token + "A" * 20_000,
        "empty": "",
        "dots": "..",
    }
    assert api.tokens.user(signed(header, claims)) is not None  # the control: with the key it would
    for what, one in forged.items():
        assert api.tokens.user(one) is None, what


async def test_a_text_in_a_secret_is_no_proof(api: Api) -> None:
    """Who may make Secrets does not say what proves an account; a token in one holds by its signature, as anywhere else."""
    annotations = {"kubernetes.io/service-account.name": "web", "kubernetes.io/service-account.uid": "account"}
    token = issue(api, Binding("secret", "legacy", "s"))
    for text, user in (("chosen", None), (token, "system:serviceaccount:shop:web")):
        data = {"token": base64.b64encode(text.encode()).decode()}
        kind = "kubernetes.io/service-account-token"
        await store(api, "secrets", "shop", "legacy", "s", metadata={"annotations": annotations}, type=kind, data=data)
        proven = api.tokens.user(text)
        assert (proven.name if proven is not None else None) == user
    await store(api, "secrets", "shop", "legacy", "another")
    assert api.tokens.user(token) is None


def test_keys() -> None:
    with pytest.raises(ValueError, match="P-256"):
        Key(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(Invalid):
        Key.fresh().verify("a.b.c")


def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "sa.key"
    path.write_bytes(PRIVATE.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    assert Key.read(str(path)).kid == Key(PRIVATE).kid
    other = rsa.generate_private_key(65537, 2048)
    path.write_bytes(other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    with pytest.raises(ValueError, match="elliptic-curve key was expected"):
        Key.read(str(path))
