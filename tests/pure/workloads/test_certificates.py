"""Certificates: what is signed, what cannot be, how long a request is kept; and one that the API takes."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

import running_apiserver
from certificate_requests import CLIENT, KUBELET, SERVING, asking
from podwire.objects.certificates import CertificateSigningRequest
from podwire.objects.codec import convert
from podwire.objects.resources import CERTIFICATE_SIGNING_REQUESTS
from podwire.workloads.certificates import desired, signing
from running_controllers import cluster, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NODE = ("system:node:n1", "system:nodes")
CLIENT_USE, SERVER_USE = ("client auth", "digital signature"), ("server auth",)


def request(*kinds: str, signer: str = CLIENT, usages: tuple[str, ...] = CLIENT_USE, **more: Any) -> CertificateSigningRequest:
    conditions = [{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T00:00:00Z"} for kind in kinds]
    spec = {"signerName": signer, "usages": usages, **more.pop("spec", {})}
    metadata = {"name": "a", "creationTimestamp": "2025-12-31T12:00:00Z"}
    return convert(CertificateSigningRequest, {"metadata": metadata, "spec": spec, "status": {"conditions": conditions, **more}})


@pytest.mark.parametrize(
    ("one", "due"),
    [
        (request("Approved"), True),
        (request(), False),
        (request("Approved", signer="example.com/own"), False),
        (request("Approved", "Denied"), False),
        (request("Approved", "Failed"), False),
        (request("Approved", certificate="eA=="), False),
    ],
)
def test_which_are_signed(one: CertificateSigningRequest, due: bool) -> None:
    assert desired.is_due(one) == due


@pytest.mark.parametrize(
    ("signer", "usages", "subject", "hosts", "words"),
    [
        (CLIENT, CLIENT_USE, ("ann", "team"), (), ""),
        (CLIENT, SERVER_USE, ("ann",), (), "usages did not match [client auth digital signature key encipherment]"),
        (CLIENT, ("client auth", "server auth"), ("ann",), (), "usages did not match"),
        (CLIENT, ("digital signature",), ("ann",), (), "usages did not match"),
        (KUBELET, CLIENT_USE, NODE, (), ""),
        (KUBELET, CLIENT_USE, ("system:node:n1", "system:nodes", "team"), (), "organization in CSR must be system:nodes"),
        (KUBELET, CLIENT_USE, ("n1", "system:nodes"), (), "subject common name must begin with system:node:"),
        (KUBELET, CLIENT_USE, NODE, ("a.b",), "subjectAltNames of this kind are not allowed"),
        (SERVING, SERVER_USE, NODE, ("n1.local",), ""),
        (SERVING, SERVER_USE, NODE, (), "at least one DNS or IP subjectAltName is required"),
    ],
)
def test_what_a_signer_signs(signer: str, usages: tuple[str, ...], subject: tuple[str, ...], hosts: tuple[str, ...], words: str) -> None:
    found = signing.asked(signing.read(base64.b64decode(asking(*subject, hosts=hosts)[0])))
    why = desired.refusal(request("Approved", signer=signer, usages=usages), found)
    assert words in why
    assert bool(words) == bool(why)


def test_how_long_it_holds_and_a_request_is_kept() -> None:
    assert desired.duration(request()) == timedelta(days=365)
    assert desired.duration(request(spec={"expirationSeconds": 3600})) == timedelta(hours=1)
    assert desired.duration(request(spec={"expirationSeconds": 1 << 30})) == timedelta(days=365)
    assert desired.kept_for(request(), NOW) == timedelta(hours=12)
    assert desired.kept_for(request("Denied"), NOW) == timedelta(hours=1)
    assert desired.kept_for(request("Approved"), NOW + timedelta(hours=2)) < timedelta()


@pytest.mark.parametrize("text", [b"", b"x", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"])
def test_what_is_no_request(text: bytes) -> None:
    with pytest.raises(signing.Unreadable):
        signing.read(text)


async def test_who_is_given_a_certificate_is_who_it_says(server: running_apiserver.ApiServer) -> None:
    pki = server.paths.pki
    wanted, key = asking("ann", "team")
    async with cluster(server, signing_certificate=f"{pki}/ca.crt", signing_key=f"{pki}/ca.key") as (admin, _):

        async def approved(name: str, spec: dict[str, Any]) -> Any:
            await admin.create(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": name}, "spec": spec})
            condition = {"type": "Approved", "status": "True", "reason": "Test"}
            path = CERTIFICATE_SIGNING_REQUESTS.path("", name, "approval")
            body = {"status": {"conditions": [condition]}}
            await admin.request("PATCH", path, body, content_type="application/merge-patch+json")

            async def settled() -> Any:
                found = (await admin.get_tree(CERTIFICATE_SIGNING_REQUESTS, name))["status"]
                return found if "certificate" in found or len(found["conditions"]) > 1 else None

            return await until(settled)

        spec = {"request": wanted, "signerName": CLIENT, "usages": ["client auth"], "expirationSeconds": 3600}
        pem = base64.b64decode((await approved("ann", spec))["certificate"])
        made = x509.load_pem_x509_certificate(pem)
        assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(hours=1)
        (server.folder / "ann.pem").write_bytes(pem + key)
        context = ssl.create_default_context(cafile=f"{pki}/ca.crt")
        context.load_cert_chain(server.folder / "ann.pem")
        assert await whoami(server, context) == ("ann", ["team", "system:authenticated"])
        failed = (await approved("fails", spec | {"usages": ["server auth"]}))["conditions"][1]
        assert (failed["type"], failed["reason"]) == ("Failed", "SignerValidationFailure")


async def whoami(server: running_apiserver.ApiServer, context: ssl.SSLContext) -> tuple[str, list[str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
    head = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews HTTP/1.1\r\nhost: a\r\nconnection: close\r\n"
    writer.write(f"{head}content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}".encode())
    answer = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    who = json.loads(answer)["status"]["userInfo"]
    return who["username"], who["groups"]
