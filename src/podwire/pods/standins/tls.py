"""TLS before any other session, for clients that speak it, such as an HTTPS probe: the certificate is the stand-ins' own.

It is made when first needed, signed by itself and trusted by nobody; a probe does not verify, as the kubelet's does not.
"""

from __future__ import annotations

import datetime
import functools
import ssl
import tempfile
from collections.abc import Callable

from podwire.pods.standins.session import Session


@functools.cache
def context() -> ssl.SSLContext:
    """The server's side, with a fresh certificate for this process."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    today = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - datetime.timedelta(days=1)).not_valid_after(today + datetime.timedelta(days=3650))
    certificate = builder.sign(key, hashes.SHA256())
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.set_alpn_protocols(["h2", "http/1.1"])
    with tempfile.NamedTemporaryFile() as file:  # the standard library loads certificates from files alone
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
        kind, shape = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file.write(key.private_bytes(serialization.Encoding.PEM, kind, shape))
        file.flush()
        made.load_cert_chain(file.name)
    return made


class Tls:
    """One connection: records outside, another session inside."""

    def __init__(self, inner: Callable[[bytes], Session]) -> None:
        """``inner`` chooses the session by its first bytes."""
        self.closing = False
        self._inner = inner
        self._session: Session | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context().wrap_bio(self._in, self._out, server_side=True)
        self._open = False

    def receive(self, data: bytes) -> bytes:
        self._in.write(data)
        try:
            if not self._open:
                self._tls.do_handshake()
                self._open = True
            self._talk()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self.closing = True  # the alert that says why is in what is to be sent
        return self._out.read()

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _talk(self) -> None:
        if self._session is not None and self._say(b""):
            return
        while data := self._tls.read(65536):
            if self._session is None:
                self._session = self._inner(data)
            if self._say(data):
                return
        self._end()

    def _say(self, data: bytes) -> bool:
        """Let the session inside hear that, and send what it has to say; gives whether it has done."""
        assert self._session is not None
        if said := self._session.receive(data):
            self._tls.write(said)
        if self._session.closing:
            self._end()
        return self._session.closing

    def _end(self) -> None:
        # The peer has said that it is done, or the session has.
        self.closing = True
        self._tls.unwrap()
