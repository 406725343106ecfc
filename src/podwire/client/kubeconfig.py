"""Where the API server is and who we are: from a kubeconfig, or from the files that a Pod finds in its container.

Certificates and keys come inline or as files (relative to the kubeconfig's own folder); a token comes inline or as a file, which is
read again whenever it changes, since tokens of Pods are short-lived. Passwords and credential programs are refused by name.

Source: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeconfigError(ValueError):
    """A kubeconfig that cannot be used. The text names the file and the entry."""


class Token:
    """A bearer token that does not change."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> str:
        return self._text


class TokenFile(Token):
    """A bearer token in a file, read again when the file is replaced or written. Raises OSError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        super().__init__("")

    def read(self) -> str:
        stat = self._path.stat()
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen != self._seen:
            self._text, self._seen = self._path.read_text().strip(), seen
        return self._text


@dataclass(frozen=True)
class Configuration:
    """All that a client needs. ``server`` has no slash at its end; ``ssl`` is None for plain HTTP; ``authority`` is the CA as PEM."""

    server: str
    ssl: ssl.SSLContext | None = field(default=None, repr=False)
    token: Token | None = field(default=None, repr=False)
    namespace: str = "default"
    server_name: str | None = None
    authority: bytes = field(default=b"", repr=False)


def load(path: str | Path, context: str | None = None) -> Configuration:
    """Read a kubeconfig. Raises KubeconfigError."""
    file = Path(path).expanduser()
    try:
        tree = _parse(file.read_bytes())
    except OSError as error:
        raise KubeconfigError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise KubeconfigError(f"{file}: {error}") from error
    try:
        return from_tree(tree, file.parent, context)
    except (KubeconfigError, OSError, ssl.SSLError) as error:
        raise KubeconfigError(f"{file}: {error}") from error


def _parse(body: bytes) -> dict[str, Any]:
    import yaml  # 20 ms that an agent with in-cluster credentials does not need

    try:
        tree = yaml.load(body, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are the safe loader
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise KubeconfigError("not a kubeconfig: no mapping at the top")
    return tree


def from_tree(tree: Mapping[str, Any], folder: Path, context: str | None = None) -> Configuration:
    """Make the configuration from a parsed kubeconfig; ``folder`` is what its relative paths start from. Raises KubeconfigError."""
    name = context or tree.get("current-context") or ""
    if not name:
        raise KubeconfigError("no current-context, and none was asked for")
    chosen = _entry(tree, "contexts", "context", name)
    cluster = _entry(tree, "clusters", "cluster", str(chosen.get("cluster", "")))
    user = _entry(tree, "users", "user", str(chosen["user"])) if chosen.get("user") else {}
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise KubeconfigError(f"cluster {chosen.get('cluster')}: server {server!r} is neither http:// nor https://")
    return Configuration(
        server=server,
        ssl=_tls(cluster, user, folder) if server.startswith("https://") else None,
        token=_token(user, folder),
        namespace=str(chosen.get("namespace") or "default"),
        server_name=cluster.get("tls-server-name"),
        authority=_material(cluster, "certificate-authority", folder) or b"",
    )


def _entry(tree: Mapping[str, Any], section: str, part: str, name: str) -> Mapping[str, Any]:
    for entry in tree.get(section) or ():
        if isinstance(entry, dict) and entry.get("name") == name:
            return entry.get(part) or {}
    raise KubeconfigError(f"no entry {name!r} in {section}")


def _token(user: Mapping[str, Any], folder: Path) -> Token | None:
    if user.get("tokenFile"):
        return TokenFile(folder / str(user["tokenFile"]))
    if user.get("token"):
        return Token(str(user["token"]))
    for key in ("exec", "auth-provider", "username"):
        if key in user:
            raise KubeconfigError(f"user asks for {key}, which is not supported: give a client certificate, a token or a tokenFile")
    return None


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> ssl.SSLContext:
    authority = _material(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=authority.decode("ascii", "replace") if authority else None)
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _material(user, "client-certificate", folder), _material(user, "client-key", folder)
    if (certificate is None) != (key is None):
        raise KubeconfigError("user has one of client-certificate and client-key without the other")
    if certificate is not None and key is not None:
        _load_chain(context, certificate, key)
    return context


def _material(entry: Mapping[str, Any], name: str, folder: Path) -> bytes | None:
    inline = entry.get(f"{name}-data")
    if inline:
        try:
            return base64.b64decode(inline, validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise KubeconfigError(f"{name}-data is not base64: {error}") from error
    return (folder / str(entry[name])).read_bytes() if entry.get(name) else None


def _load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    # OpenSSL takes a chain from files only; a memory file never shows on a disk.
    descriptor = os.memfd_create("client-certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, certificate.rstrip() + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def in_cluster(folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] | None = None) -> Configuration:
    """Take the credentials of the Pod that this process runs in. Raises KubeconfigError outside of a Pod."""
    variables = os.environ if environment is None else environment
    host, port = variables.get("KUBERNETES_SERVICE_HOST", ""), variables.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise KubeconfigError("not in a Pod (KUBERNETES_SERVICE_HOST is not set): give a kubeconfig")
    token = TokenFile(folder / "token")
    try:
        token.read()
        authority = (folder / "ca.crt").read_bytes()
        context = ssl.create_default_context(cadata=authority.decode("ascii", "replace"))
        namespace = (folder / "namespace").read_text().strip()
    except (OSError, ssl.SSLError) as error:
        raise KubeconfigError(f"credentials of the Pod's service account in {folder}: {error}") from error
    return Configuration(f"https://{f'[{host}]' if ':' in host else host}:{port}", context, token, namespace, authority=authority)
