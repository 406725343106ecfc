"""Who the parts of a cluster are: a certificate authority, the API's certificate, one client certificate an identity, the key that signs
the tokens of ServiceAccounts.

Private keys are ECDSA P-256, files 0600. Making them twice changes nothing that is there already, so a cluster that comes
back keeps its credentials. No component uses the user's.

Source: https://kubernetes.io/docs/setup/best-practices/certificates/
"""

from __future__ import annotations

import datetime
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from podwire.cluster import kubeconfig
from podwire.cluster.identity import ADMIN, Identity
from podwire.cluster.paths import Paths

VALID_FOR = datetime.timedelta(days=3650)
CLOCK_SKEW = datetime.timedelta(hours=1)


def ensure(
    paths: Paths,
    identities: Sequence[Identity],
    *,
    server_names: Sequence[str],
    server: str,
    cluster: str,
    kubelets: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Make what is missing of the CA, the certificates of the API and of the kubelets, and each identity's kubeconfig.

    ``kubelets``: node to the names and addresses that its certificate holds.
    ``server_names`` are DNS names and addresses that the API's certificate holds; ``server`` is the URL that components use.
    """
    for folder in (paths.root, paths.pki, os.path.dirname(paths.kubeconfig(ADMIN))):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    authority = _authority(paths, cluster)
    _ensure_pair(f"{paths.pki}/apiserver", lambda: authority.issue("kube-apiserver", (), names=server_names))
    # As whom the API server asks kubelets; in the API itself this user has no rights.
    _ensure_pair(f"{paths.pki}/apiserver-kubelet-client", lambda: authority.issue("kube-apiserver-kubelet-client", ()))
    for node, names in (kubelets or {}).items():
        _ensure_pair(paths.kubelet(node), functools.partial(authority.issue, f"system:node:{node}", ("system:nodes",), names))
    if not os.path.exists(f"{paths.pki}/sa.key"):
        _write(f"{paths.pki}/sa.key", _pem(ec.generate_private_key(ec.SECP256R1())))
    for identity in identities:
        file = paths.kubeconfig(identity.name)
        if os.path.exists(file):
            continue
        certificate, key = authority.issue(identity.user, identity.groups)
        entry = kubeconfig.Entry(f"podwire-{cluster}", server, authority.pem, certificate, key)
        # JSON is YAML, and ten times quicker to read at every start of a process.
        _write(file, json.dumps(kubeconfig.document(entry)).encode())


def _ensure_pair(base: str, issue: Callable[[], tuple[bytes, bytes]]) -> None:
    """A certificate and its key, ``BASE.crt`` and ``BASE.key``."""
    if not (os.path.exists(f"{base}.crt") and os.path.exists(f"{base}.key")):
        certificate, key = issue()
        _write(f"{base}.key", key)
        _write(f"{base}.crt", certificate)


class _Authority:
    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self.key = key
        self.pem = certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, user: str, groups: Sequence[str], names: Sequence[str] = ()) -> tuple[bytes, bytes]:
        """Issue a certificate: for a server when it has names, else for a client. Returns (certificate, key) as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _builder(x509.Name(subject), self.certificate.subject, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def _authority(paths: Paths, cluster: str) -> _Authority:
    base = f"{paths.pki}/ca"
    if os.path.exists(f"{base}.crt") and os.path.exists(f"{base}.key"):
        with open(f"{base}.crt", "rb") as certificate_file, open(f"{base}.key", "rb") as key_file:
            key = serialization.load_pem_private_key(key_file.read(), password=None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return _Authority(x509.load_pem_x509_certificate(certificate_file.read()), key)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"podwire {cluster} CA")])
    certificate = (
        _builder(name, name, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(f"{base}.key", _pem(key))
    _write(f"{base}.crt", certificate.public_bytes(serialization.Encoding.PEM))
    return _Authority(certificate, key)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALID_FOR)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    address: IPv4Address | IPv6Address
    try:
        address = ip_address(name)
    except ValueError:
        return x509.DNSName(name)
    return x509.IPAddress(address)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(file: str, content: bytes) -> None:
    """Write a private file whole: beside its place, then renamed, so that a kill leaves the old one or none."""
    beside = f"{file}.tmp"
    descriptor = os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    os.replace(beside, file)
