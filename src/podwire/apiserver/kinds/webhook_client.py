"""How the API reaches a webhook: by URL or by Service. Several kinds say it in the same way.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#contacting-the-webhook
"""

from __future__ import annotations

import base64
import ssl
from urllib.parse import urlsplit

from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import FieldError, Path, invalid, required
from podwire.apiserver.validation_values import PORT_RANGE

_PORT = 443
_FORM = "; desired format: https://host[:port]/path"


def default_client(client: Tree) -> None:
    """Fill in the port."""
    if "service" in client:
        client["service"].setdefault("port", _PORT)


def client_errors(client: Tree, path: Path) -> list[FieldError]:
    """Check a WebhookClientConfig."""
    if ("url" in client) == ("service" in client):
        return [required(path, "exactly one of url or service is required")]
    return _url_errors(client["url"], path / "url") if "url" in client else _service_errors(client["service"], path / "service")


def bundle_errors(bundle: str, path: Path) -> list[FieldError]:
    """Check a caBundle: certificates in PEM, in base64. None at all is right."""
    if not bundle:
        return []
    try:
        ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
    except (ssl.SSLError, ValueError):
        why = "data does not contain any valid RSA or ECDSA certificates"
        return [invalid(path, bundle, f"unable to load root certificates: {why}")]
    return []


def _url_errors(text: str, path: Path) -> list[FieldError]:
    try:
        url = urlsplit(text)
    except ValueError as error:
        return [required(path, f"url must be a valid URL: {error}{_FORM}")]
    errors: list[FieldError] = []
    if url.scheme != "https":
        errors.append(invalid(path, url.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    if not url.netloc:
        errors.append(invalid(path, "", f"host must be specified{_FORM}"))
    if "@" in url.netloc:
        errors.append(invalid(path, url.netloc.rpartition("@")[0], "user information is not permitted in the URL"))
    if url.fragment:
        errors.append(invalid(path, url.fragment, "fragments are not permitted in the URL"))
    if url.query:
        errors.append(invalid(path, url.query, "query parameters are not permitted in the URL"))
    return errors


def _service_errors(service: Tree, path: Path) -> list[FieldError]:
    errors = [required(path / key, f"service {key} is required") for key in ("name", "namespace") if not service.get(key)]
    port, below = service.get("port", _PORT), service.get("path", "/")
    if not 1 <= port <= 65535:
        errors.append(invalid(path / "port", port, f"port is not valid: {PORT_RANGE}"))
    return errors if below.startswith("/") else [*errors, invalid(path / "path", below, "must start with a '/'")]
