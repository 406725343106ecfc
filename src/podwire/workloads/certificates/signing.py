"""A certificate made of a request: what was asked, signed by the cluster's authority. Random numbers are the library's.

Source: RFC 2986, RFC 5280
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podwire.workloads.certificates.desired import Asked

_SKEW = timedelta(minutes=5)  # clocks of others may be behind so much
_BASIC = frozenset({"digital signature", "key encipherment"})
_PURPOSES = {"client auth": ExtendedKeyUsageOID.CLIENT_AUTH, "server auth": ExtendedKeyUsageOID.SERVER_AUTH}


class Unreadable(ValueError):
    """A request that cannot be read, or is not signed with its own key."""


def read(request: bytes) -> x509.CertificateSigningRequest:
    """Read a request, PEM. Raises Unreadable."""
    try:
        found = x509.load_pem_x509_csr(request)
        is_valid = found.is_signature_valid
        asked(found)  # what is malformed shows when it is read
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise Unreadable(str(error)) from error
    if not is_valid:
        raise Unreadable("the request is not signed with its own key")
    return found


def asked(request: x509.CertificateSigningRequest) -> Asked:
    """Say whom a request is for."""
    names = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    groups = [str(one.value) for one in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    alternatives = _alternatives(request)
    hosts = sum(isinstance(one, x509.DNSName | x509.IPAddress) for one in alternatives)
    return Asked(names[0] if names else "", tuple(groups), hosts, len(alternatives) - hosts)


def _alternatives(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, certificate: str, key: str) -> Authority:
        """Read its two files, PEM. Raises OSError, ValueError."""
        private = serialization.load_pem_private_key(Path(key).read_bytes(), password=None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key}: an elliptic-curve key was expected")  # noqa: TRY004 (what a file holds)
        return cls(x509.load_pem_x509_certificate(Path(certificate).read_bytes()), private)

    def signed(self, request: x509.CertificateSigningRequest, usages: tuple[str, ...], lasts: timedelta, now: datetime) -> bytes:
        """Make a certificate, PEM. It does not outlive its authority."""
        begin = now - _SKEW
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(min(begin + lasts, self.certificate.not_valid_after_utc))
            .add_extension(x509.ExtendedKeyUsage([_PURPOSES[one] for one in usages if one in _PURPOSES]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if not _BASIC.isdisjoint(usages):  # an extension that allows nothing is none
            builder = builder.add_extension(_key_usage(usages), critical=True)
        alternatives = _alternatives(request)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _key_usage(usages: tuple[str, ...]) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature="digital signature" in usages,
        key_encipherment="key encipherment" in usages,
        key_cert_sign=False,
        crl_sign=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
