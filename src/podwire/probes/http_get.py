"""An HTTP or HTTPS probe.

One request, one connection: status 200..399 is a success, a redirect is followed to the same host only (one that leads
elsewhere ends the probe as a success worth a warning), certificates are not verified, and the time limit is for the whole.

Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Iterable
from urllib.parse import SplitResult, urljoin, urlsplit

import httptools

from podwire.probes.result import ProbeResult, join_host_port, words_of

USER_AGENT = "kube-probe/1.37"
MAXIMUM_BODY = 10 * 1024
MAXIMUM_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


async def http(url: str, headers: Iterable[tuple[str, str]] = (), timeout: float = 1.0) -> ProbeResult:
    """GET ``url`` (its host an address). ``headers`` replace the defaults of the same name; ``Host`` sets the virtual host."""
    fields = _fields(headers)
    target = url
    try:
        async with asyncio.timeout(timeout):
            for _ in range(MAXIMUM_REDIRECTS):
                response = await _get(urlsplit(target), fields)
                location = response.location
                if response.status not in _REDIRECTS or not location:
                    return _judge(response)
                following = urljoin(target, location)
                if urlsplit(following).hostname != urlsplit(url).hostname:
                    return _judge(response)
                target = following
    except TimeoutError:
        reason = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return ProbeResult(False, f'Get "{target}": {reason}')
    except _Refused as refused:
        return ProbeResult(False, f'Get "{target}": {refused}')
    return ProbeResult(False, f'Get "{target}": stopped after {MAXIMUM_REDIRECTS} redirects')


class _Refused(Exception):
    """No response; the text is the reason in the kubelet's words."""


def _judge(response: _Response) -> ProbeResult:
    if not 200 <= response.status < 400:
        return ProbeResult(False, f"HTTP probe failed with statuscode: {response.status}")
    if response.status >= 300:
        body = bytes(response.body).decode(errors="replace")
        return ProbeResult(True, f"Probe terminated redirects, Response body: {body}", warning=True)
    return ProbeResult(True)


def _fields(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    given = tuple(headers)
    names = {name.lower() for name, _ in given}
    defaults = [(name, value) for name, value in (("User-Agent", USER_AGENT), ("Accept", "*/*")) if name.lower() not in names]
    # A header given as empty says that it is not to be sent at all.
    kept = [(name, value) for name, value in given if value or name.lower() not in {"user-agent", "accept"}]
    return (*defaults, *kept)


class _Response:
    """What the parser tells; the body is cut at MAXIMUM_BODY."""

    def __init__(self) -> None:
        self.status = 0
        self.location = ""
        self.body = bytearray()
        self.complete = False
        self.parser = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"location":
            self.location = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body += body[: MAXIMUM_BODY - len(self.body)]

    def on_message_complete(self) -> None:
        # 1xx answers precede the one that counts.
        self.complete = self.status >= 200

    @property
    def enough(self) -> bool:
        return self.complete or len(self.body) >= MAXIMUM_BODY


@functools.cache
def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _get(url: SplitResult, fields: tuple[tuple[str, str], ...]) -> _Response:
    secure = url.scheme == "https"
    host, port = url.hostname or "", url.port or (443 if secure else 80)
    address = join_host_port(host, port)
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=_unverified() if secure else None)
    except ssl.SSLError as error:
        raise _Refused(f"tls: {error.reason or error}") from error
    except OSError as error:
        raise _Refused(f"dial tcp {address}: connect: {words_of(error)}") from error
    try:
        writer.write(_request(url, fields))
        return await _response(reader)
    except ssl.SSLError as error:
        raise _Refused(f"tls: {error.reason or error}") from error
    except OSError as error:
        raise _Refused(f"read tcp {address}: {words_of(error)}") from error
    finally:
        # The connection is done with, whatever the answer; nobody waits for the last words of TLS.
        if secure:
            writer.transport.abort()
        else:
            writer.close()


def _request(url: SplitResult, fields: tuple[tuple[str, str], ...]) -> bytes:
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    host = next((value for name, value in fields if name.lower() == "host"), url.netloc)
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields if name.lower() != "host")]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace")


async def _response(reader: asyncio.StreamReader) -> _Response:
    response = _Response()
    while not response.enough:
        data = await reader.read(65536)
        try:
            if not data:
                return _at_end(response)
            response.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            break
        except httptools.HttpParserError as error:
            raise _Refused(f"net/http: HTTP/1.x transport connection broken: malformed HTTP response ({error})") from error
    return response


def _at_end(response: _Response) -> _Response:
    """The peer closed: that ends a body without a length, and nothing else."""
    if response.status < 200:
        raise _Refused("EOF")
    return response
