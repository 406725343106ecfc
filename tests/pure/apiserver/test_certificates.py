"""Client certificates: whose, until when, for what."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import math
import random
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.api import Api
from podwire.apiserver.app import EXTENSION, Application
from podwire.apiserver.authentication import Certified, User
from podwire.apiserver.status import Failure
from podwire.store import Store
from running_apiserver import ApiServer

DEADLINE_S = 20.0
DAY = datetime.timedelta(days=1)


def certificate(
    folder: Path, name: str, *, since: datetime.timedelta = -9 * DAY, until: datetime.timedelta = DAY, of: ApiServer | None, use: Any = None
) -> Path:
    """A client certificate of a server's authority or of its own, with a time (from now) and what it is for."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = subject, key
    if of is not None:
        loaded = serialization.load_pem_private_key(Path(f"{of.paths.pki}/ca.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        issuer, signer = x509.load_pem_x509_certificate(Path(f"{of.paths.pki}/ca.crt").read_bytes()).subject, loaded
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now + since).not_valid_after(now + until)
    if use is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    path = folder / f"{name}.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
    return path


def asked_with(server: ApiServer, pem: Path, headers: bytes = b"") -> bytes:
    """What a client with a certificate is told when it asks for all Secrets; nothing, if TLS ends before."""
    context = ssl.create_default_context(cafile=f"{server.paths.pki}/ca.crt")
    context.load_cert_chain(pem)
    answer = b""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /api/v1/secrets HTTP/1.1\r\nhost: a\r\nconnection: close\r\n" + headers + b"\r\n")
        while piece := connection.recv(65536):
            answer += piece
    return answer


def test_certificates_of_another_authority_or_for_another_use(server: ApiServer, tmp_path: Path) -> None:
    client = ExtendedKeyUsageOID.CLIENT_AUTH
    assert asked_with(server, certificate(tmp_path, "right", of=server, use=client)).startswith(b"HTTP/1.1 200")
    # TLS itself refuses who has a wrong certificate: there is no answer, not even one that says no.
    assert asked_with(server, certificate(tmp_path, "stranger", of=None, use=client)) == b""
    assert asked_with(server, certificate(tmp_path, "server", of=server, use=ExtendedKeyUsageOID.SERVER_AUTH)) == b""


@pytest.mark.parametrize(("since", "until"), [(-9 * DAY, -DAY), (DAY, 9 * DAY)], ids=["expired", "not yet"])
def test_certificates_of_another_time(
    call: Any, server: ApiServer, tmp_path: Path, since: datetime.timedelta, until: datetime.timedelta
) -> None:
    """A certificate of ours outside of its time proves nobody, neither an administrator nor anonymous."""
    answer = asked_with(server, certificate(tmp_path, "late", since=since, until=until, of=server))
    assert answer.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    said = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (said["kind"], said["reason"], said["message"], said["code"]) == ("Status", "Unauthorized", "Unauthorized", 401)
    # It is no proof; who has another beside it needs none.
    call("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "late"}})
    made = call("POST", "/api/v1/namespaces/default/serviceaccounts/late/token", {"spec": {}}).tree["status"]["token"]
    told = asked_with(server, tmp_path / "late.pem", f"authorization: Bearer {made}\r\n".encode())
    assert b'User \\"system:serviceaccount:default:late\\" cannot list' in told


def test_a_connection_does_not_outlive_its_certificate(server: ApiServer, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=f"{server.paths.pki}/ca.crt")
    context.load_cert_chain(certificate(tmp_path, "brief", until=datetime.timedelta(seconds=3), of=server))
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=DEADLINE_S)
    connection.connect()
    made = connection.sock
    seen = set()
    end = time.monotonic() + DEADLINE_S
    while 401 not in seen and time.monotonic() < end:
        connection.request("GET", "/api/v1/namespaces/default")
        answer = connection.getresponse()
        answer.read()
        seen.add(answer.status)
    assert seen == {200, 401}
    assert connection.sock is made
    connection.close()


async def test_an_authority_that_has_expired_vouches_for_nobody(tmp_path: Path) -> None:
    api = Api(Store.open(tmp_path / "db"), Allocator(Ranges(), random.Random(0)))
    application = Application(api, "v1.37.0", authority_until=1.0)
    certificate_of_today = Certified(User("ann", ("system:masters",)), 0, math.inf)
    scope = {"type": "http", "extensions": {EXTENSION: {"certified": certificate_of_today}}}
    with pytest.raises(Failure, match="Unauthorized"):
        application._user(scope, {})
    await api.store.close()
