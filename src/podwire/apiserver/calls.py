"""Calls to programs of users, over HTTPS: webhooks of admission and of conversion.

A program is named by URL or by Service; one that is named by its Service is reached at a ready Pod of it, for the control plane has no
service proxy, and its certificate must be one for ``NAME.NAMESPACE.svc``. While it is waited for, the request that asks has no seat
(``fairness.py``), so that programs that do not answer keep no other request from being served.

Here: where a program is, whom to trust, one POST. Not here: what is asked and answered (``admission/webhooks.py``,
``extension/review.py``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#contacting-the-webhook
"""

from __future__ import annotations

import base64
import random
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from podwire.apiserver import fairness
from podwire.apiserver.answers import decode
from podwire.client.http import aiohttp
from podwire.store import Store

Tree = dict[str, Any]
_TO_ONE = 100  # connections to one address
_FAILURES = (TimeoutError, aiohttp.ClientError, OSError)
_STATUSES = {  # of answers that are none, in the words of Kubernetes' clients
    400: "the server rejected our request for an unknown reason",
    401: "the server has asked for the client to provide credentials",
    404: "the server could not find the requested resource",
    405: "the server does not allow this method on the requested resource",
    409: "the server reported a conflict",
    422: "the server rejected our request due to an error in our request",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
    504: "the server was unable to return a response in the time allotted, but may still be processing the request",
}
_SHOWN = 2048  # bytes of an answer that are told


class NoAnswer(Exception):
    """A program that could not be asked, or answered what is no answer. The text is as Kubernetes' own clients tell it."""


@dataclass(eq=False, slots=True)
class Callee:
    """Who is called: a WebhookClientConfig, with what was worked out of it."""

    client: Tree
    context: ssl.SSLContext | None = None

    @property
    def url(self) -> str:
        """Name it as messages do."""
        if "url" in self.client:
            return str(self.client["url"])
        service = self.client["service"]
        return f"https://{_host(service)}:{service['port']}{service.get('path', '/')}"


class Calls:
    """The connections to programs of users."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, callee: Callee, body: bytes, limit_s: float, largest: int) -> bytes:
        """Send JSON and give what is answered, of at most ``largest`` bytes. Raises NoAnswer."""
        query = f"{'&' if '?' in callee.url else '?'}timeout={limit_s:g}s"
        place = ""
        try:
            url, host, name = self._place(callee.client)
            place = urlsplit(url).netloc
            if callee.context is None:
                callee.context = _context(callee.client)
            code, text = await self._exchange(url + query, host, name, callee.context, body, limit_s, largest)
        except (NoAnswer, *_FAILURES) as error:
            raise NoAnswer(f'Post "{callee.url}{query}": {_told(error, place)}') from None
        if code != 200:
            raise NoAnswer(_refused(code, text))
        if len(text) > largest:
            raise NoAnswer(f"the answer has more than {largest} bytes")
        return text

    async def _exchange(
        self, url: str, host: str, name: str | None, context: ssl.SSLContext, body: bytes, limit_s: float, largest: int
    ) -> tuple[int, bytes]:
        if self._session is None:
            # A program that does not answer fills its own connections, not those of others.
            self._session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0, limit_per_host=_TO_ONE))
        # What is packed may be of any size when it is unpacked: it is not asked for.
        headers = {"content-type": "application/json", "accept": "application/json", "accept-encoding": "identity"}
        parts: list[bytes] = []
        left = largest + 1
        async with (
            fairness.away(),
            self._session.post(
                url,
                data=body,
                headers=headers | ({"host": host} if host else {}),
                timeout=aiohttp.ClientTimeout(total=limit_s),
                ssl=context,
                server_hostname=name,
                allow_redirects=False,
            ) as answer,
        ):
            while left and (part := await answer.content.read(left)):
                parts.append(part)
                left -= len(part)
        return answer.status, b"".join(parts)

    def _place(self, client: Tree) -> tuple[str, str, str | None]:
        """Give the URL of a program, the name for its requests and for TLS. Raises NoAnswer."""
        if "url" in client:
            return client["url"], "", None
        service = client["service"]
        name = _host(service)
        address, port = self._endpoint(service)
        address = f"[{address}]" if ":" in address else address
        path = service.get("path", "/")
        return f"https://{address}:{port}{path}", f"{name}:{service['port']}", name

    def _endpoint(self, service: Tree) -> tuple[str, int]:
        """Choose a ready endpoint of a Service. Raises NoAnswer."""
        namespace, name, port = service["namespace"], service["name"], service["port"]
        record = self._store.get(f"services/{namespace}/{name}")
        if record is None:
            raise NoAnswer(f'service "{name}" not found')
        named = next((one.get("name", "") for one in decode(record.value)["spec"].get("ports", ()) if one["port"] == port), None)
        if named is None:
            raise NoAnswer(f'no service port {port} found for service "{name}"')
        ready: list[tuple[str, int]] = []
        for one in self._store.range(f"endpointslices.discovery.k8s.io/{namespace}/"):
            tree = decode(one.value)
            if tree["metadata"].get("labels", {}).get("kubernetes.io/service-name") != name:
                continue
            ports = [found["port"] for found in tree.get("ports") or () if (found.get("name") or "") == named and found.get("port")]
            for endpoint in tree.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready") is not False:
                    ready += [(address, port) for address in endpoint["addresses"] for port in ports]
        if not ready:
            raise NoAnswer(f'no endpoints available for service "{name}"')
        return random.choice(ready)


def _told(error: Exception, place: str) -> str:
    """Say what went wrong with a connection, as Go says it. ``place``: address and port."""
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    cause: BaseException | None = error
    while cause is not None:
        if said := str(getattr(cause, "verify_message", "")):
            why = "certificate signed by unknown authority" if "self" in said or "issuer" in said else said
            return f"tls: failed to verify certificate: x509: {why}"
        if isinstance(cause, ConnectionRefusedError):
            return f"dial tcp {place}: connect: connection refused"
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _refused(code: int, text: bytes) -> str:
    """Say what an answer with another code than 200 means."""
    if code >= 500 and code not in _STATUSES:
        said = orjson.dumps(text[:_SHOWN].decode(errors="replace").strip() or "unknown").decode()
        return f"an error on the server ({said}) has prevented the request from succeeding"
    return _STATUSES.get(code) or f"the server responded with the status code {code} but did not return more information"


def _host(service: Tree) -> str:
    return f"{service['name']}.{service['namespace']}.svc"


def _context(client: Tree) -> ssl.SSLContext:
    """Trust who the program's configuration says. Raises NoAnswer."""
    bundle = client.get("caBundle")
    if not bundle:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())
    except (ssl.SSLError, ValueError) as error:
        raise NoAnswer(f"unable to load root certificates: {error}") from None
