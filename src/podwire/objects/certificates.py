"""The group certificates.k8s.io/v1: who asks for a certificate, and what became of it.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/certificate-signing-request-v1/
"""

from __future__ import annotations

from podwire.objects.core import Condition
from podwire.objects.meta import Object, Value


class CertificateSigningRequestSpec(Value, frozen=True):
    """``request``: a PKCS #10 request, PEM."""

    request: bytes = b""
    signer_name: str = ""
    expiration_seconds: int | None = None
    usages: tuple[str, ...] = ()


class CertificateSigningRequestStatus(Value, frozen=True):
    """``certificate``: a chain, PEM."""

    conditions: tuple[Condition, ...] = ()
    certificate: bytes = b""


class CertificateSigningRequest(Object, frozen=True):
    spec: CertificateSigningRequestSpec = CertificateSigningRequestSpec()
    status: CertificateSigningRequestStatus = CertificateSigningRequestStatus()
