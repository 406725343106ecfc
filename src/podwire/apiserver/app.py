"""The ASGI application: one HTTP request in, one answer out.

    who (certificate, token) ─> which path ─> may they ─> body ─> verbs ─> answer, or a Status that says what is wrong

Here: paths that are not resources, the reading of bodies and the sending of answers, errors. Not here: what verbs do. Whatever is raised
below becomes a Status; nothing of a traceback leaves this file but into the log. Answers that are long go out in pieces, and between them
others are served.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html, https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

import orjson

from podwire.apiserver import (
    authentication,
    bodies,
    discovery,
    health,
    openapi,
    requests,
    resource_metrics,
    status,
    streaming,
    verbs,
    watch_socket,
)
from podwire.apiserver.answers import Answer, Stream, TooDeep, answer
from podwire.apiserver.api import Api
from podwire.apiserver.auth import impersonation
from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.auth.audit import Audit
from podwire.apiserver.authentication import ANONYMOUS, Certified, User
from podwire.apiserver.bodies import LIMIT
from podwire.apiserver.encodings import Encodings
from podwire.apiserver.fairness import LONG_FROM, Turns, Visit, is_exempt
from podwire.apiserver.requests import Request
from podwire.apiserver.streaming.upstream import Upstream
from podwire.store import Unwritable

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EXTENSION = "podwire"
BODY_S = 60.0  # how long a client may take to send a body
EXCHANGE = (
    "podwire.exchange"  # in a scope: ``whole_body`` gives the body if all of it has come, ``answer`` sends a whole answer in one step
)

_LOG = logging.getLogger("podwire.apiserver")
_COMMON = ((b"cache-control", b"no-cache, private"),)
_YEAR_S = 365 * 86_400.0


class _Gone(Exception):
    """The client closed its connection before it had sent its request."""


class Application:
    """The API over one store. ``version`` is what ``/version`` says, as ``v1.37.0``; ``url`` is where it is reached in the cluster.

    ``upstream`` connects to kubelets, Pods and Services. ``authority_until`` is when the authority of client certificates expires (seconds
    since 1970).
    """

    def __init__(
        self,
        api: Api,
        version: str,
        url: str = "",
        turns: Turns | None = None,
        audit: Audit | None = None,
        upstream: Upstream | None = None,
        authority_until: float = math.inf,
    ) -> None:
        self._api = api
        self._authority_until = authority_until
        self._upstream = upstream or Upstream()
        self._resource_metrics = resource_metrics.ResourceMetrics(api, self._upstream)
        self._url = url
        self._audit = audit
        self._version = _version(version)
        self._reading = asyncio.Semaphore(1)  # one at a time: threads share the interpreter
        self._turns = turns if turns is not None else Turns()
        self._encodings = Encodings()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request: Request | None = None
        visit: Visit | None = None
        trail = self._audit.begin(scope) if self._audit is not None else None
        try:
            if b"sec-websocket-protocol" in headers:
                _take_token(scope, headers)
            user = self._user(scope, headers)
            if trail is not None:
                trail.user = user
            if impersonation.is_asked(scope["headers"]):
                user = impersonation.taken_for(self._api.authorizer, user, scope["headers"])
                if trail is not None:
                    trail.taken_for = user
            path: str = scope["path"]
            target = requests.target(path)
            if target is None:
                found: Answer | Stream | streaming.Exchange = await self._other(scope["method"], path, scope["query_string"], headers, user)
            else:
                request = Request(scope["method"], path, target, requests.query(scope["query_string"]), headers, user)
                if trail is not None:
                    trail.request = request
                verb = verbs.authorize(self._api, request)
                if not is_exempt(user, target):
                    visit = self._turns.arrive(user.name)
                if streaming.takes(target):
                    if visit is not None:
                        await self._turns.seat(visit)
                    take_over = scope.get("extensions", {}).get(EXTENSION, {}).get("take_over")
                    found = await streaming.answer(self._api, self._upstream, request, scope, receive, take_over)
                elif resource_metrics.takes(target):
                    if visit is not None:
                        await self._turns.seat(visit)
                    found = await self._resource_metrics.answer(request, verb)
                else:
                    found = await self._here(request, verb, visit, scope, receive)
        except status.Failure as failure:
            found = _refusal(failure)
        except TimeoutError:
            found = _refusal(status.timeout())
        except Unwritable as error:
            _LOG.error("%s %s: %s", scope["method"], scope["path"], error)
            found = _refusal(status.internal(str(error)))
        except (TooDeep, RecursionError):
            found = _refusal(status.bad_request("the object is nested too deeply"))
        except _Gone:
            return
        except Exception as error:
            _LOG.exception("%s %s", scope["method"], scope["path"])
            found = _refusal(status.internal(f"{type(error).__name__} while the request was handled"))
        finally:
            if visit is not None:
                self._turns.leave(visit)
        warnings = request.warnings if request is not None else ()
        if isinstance(found, streaming.Exchange):
            if self._audit is not None and trail is not None:
                self._audit.end(trail, found.begun, "ResponseStarted")
            await found.run(self._api, receive, send)
            found = found.begun
        else:
            if isinstance(found, Stream) and self._audit is not None and trail is not None:
                self._audit.end(trail, found, "ResponseStarted")
            await self._send(scope, receive, send, await self._encodings.written(found, scope["path"], headers), warnings)
        if self._audit is not None and trail is not None:
            self._audit.end(trail, found)

    async def _send(self, scope: Scope, receive: Receive, send: Send, found: Answer | Stream, warnings: Iterable[str]) -> None:
        if isinstance(found, Stream):
            await self._stream(scope, receive, send, found, warnings)
        elif EXCHANGE in scope and not found.headers and not warnings and scope["method"] != "HEAD":
            await scope[EXCHANGE].answer(found.code, _headers(found.content_type), found.body)
        else:
            await _send_whole(send, found, warnings, head=scope["method"] == "HEAD")

    async def _here(self, request: Request, verb: str, visit: Visit | None, scope: Scope, receive: Receive) -> Answer | Stream:
        """Read the body, wait for a turn, and do what is asked. Raises Failure, TimeoutError."""
        headers = request.headers
        if request.method not in ("GET", "HEAD"):
            whole: bytes | None = scope[EXCHANGE].whole_body() if EXCHANGE in scope else None
            if whole is not None:
                if len(whole) > LIMIT:
                    raise status.too_large(LIMIT)
                request.body = whole
            else:
                async with asyncio.timeout(BODY_S):
                    take = functools.partial(self._turns.take_long_body, visit) if visit is not None else None
                    request.body = await _body(headers, receive, take)
            if bodies.takes_long(request):
                async with self._reading:
                    request.body = await asyncio.to_thread(bodies.yaml_as_json, request.body)
        if visit is not None:
            await self._turns.seat(visit)
        return await verbs.handle(self._api, request, verb)

    def _user(self, scope: Scope, headers: Mapping[bytes, bytes]) -> User:
        """Say who asks. Raises Failure (401)."""
        header = headers.get(b"authorization")
        if header is not None:
            token = authentication.bearer(header)
            user = self._api.tokens.user(token) if token is not None else None
            if user is None:
                raise status.unauthorized()
            return user
        extension = scope.get("extensions", {}).get(EXTENSION)
        certified: Certified | None = extension["certified"] if extension is not None else None
        if certified is None:
            return ANONYMOUS
        if not certified.since <= time.time() <= min(certified.until, self._authority_until):
            raise status.unauthorized()
        return certified.user

    async def _other(self, method: str, path: str, query: bytes, headers: Mapping[bytes, bytes], user: User) -> Answer:
        """Answer to a path that is not a resource's. Raises Failure (403, 404, 405)."""
        self._api.authorizer.demand(user, Attributes("get" if method == "HEAD" else method.lower(), path=path), {})
        found = self._health(path, query) or await self._page(path.rstrip("/") or "/", query, headers)
        if found is None:
            raise status.no_such_path()
        if method not in ("GET", "HEAD"):
            raise status.method_not_allowed()
        return found

    def _health(self, path: str, query: bytes) -> Answer | None:
        well = {"ping": True, "etcd": not self._api.store.refused, "shutdown": not self._api.ending}
        found = health.page(path, query.decode("latin-1"), well)
        return None if found is None else Answer(found[0], found[1].encode(), content_type=b"text/plain; charset=utf-8")

    async def _page(self, path: str, query: bytes, headers: Mapping[bytes, bytes]) -> Answer | None:
        if path == "/version":
            return answer(self._version)
        if path == "/metrics":
            return Answer(200, self._metrics(), content_type=b"text/plain; version=0.0.4; charset=utf-8")
        if path == "/":
            places = ["/.well-known/openid-configuration", "/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3"]
            places += ["/openid/v1/jwks", "/readyz", "/version"]
            return answer({"paths": places})
        if path == "/openid/v1/jwks":
            return Answer(200, orjson.dumps(self._api.tokens.key_set()), content_type=b"application/jwk-set+json")
        if path == "/.well-known/openid-configuration":
            return answer(self._api.tokens.discovery(self._url))
        if path == "/openapi/v3":
            # Worked out once, beside the event loop: it reads all schemas.
            return Answer(200, await asyncio.to_thread(openapi.index, self._api.registry))
        if path == "/openapi/v2":
            body, content_type = openapi.version_2(headers.get(b"accept", b"").decode("latin-1"))
            return Answer(200, body, content_type=content_type.encode())
        if path.startswith("/openapi/v3/"):
            return await self._document(path.removeprefix("/openapi/v3/"), query, headers)
        return discovery.respond(self._api.registry, path, headers.get(b"accept", b""))

    async def _document(self, place: str, query: bytes, headers: Mapping[bytes, bytes]) -> Answer | None:
        """A document of OpenAPI. Who asks for the one that it is now may keep it for good; who has it is not sent it again."""
        match place.split("/"):
            case ["api", version]:
                group = ""
            case ["apis", group, version]:
                pass
            case _:
                return None
        try:
            mark = await asyncio.to_thread(openapi.mark, self._api.registry, group, version)
        except KeyError:
            return None
        wanted = dict(parse_qsl(query.decode("latin-1"))).get("hash", "")
        if wanted not in ("", mark):
            return Answer(301, b"", ((b"location", openapi.location(group, version, mark).encode()),))
        etag = f'"{mark}"'.encode()
        own = [(b"etag", etag), (b"vary", b"Accept"), (b"date", formatdate(usegmt=True).encode())]
        if wanted:
            own += [(b"cache-control", b"public, immutable"), (b"expires", formatdate(time.time() + _YEAR_S, usegmt=True).encode())]
        known = etag in headers.get(b"if-none-match", b"")
        return Answer(304 if known else 200, openapi.openapi(self._api.registry, group, version), tuple(own))

    def _metrics(self) -> bytes:
        store, lines = self._api.store, []
        for name, kind, text, value in (
            ("apiserver_storage_revision", "gauge", "Revision of the last write that is on disk.", store.revision),
            ("apiserver_current_inflight_requests", "gauge", "Requests that are present.", self._turns.present),
            ("apiserver_flowcontrol_rejected_requests_total", "counter", "Requests whose user had too many.", self._turns.rejected),
            ("apiserver_longrunning_requests", "gauge", "Watches that are open.", len(self._api.streams)),
        ):
            lines += [*_metric_head(name, kind, text), f"{name} {value}"]
        name = "apiserver_storage_objects"
        lines += _metric_head(name, "gauge", "Stored objects, by kind.")
        lines += [f'{name}{{resource="{table}"}} {store.count(table + "/")}' for table in sorted(store.tables())]
        return ("\n".join(lines) + "\n").encode()

    async def _stream(self, scope: Scope, receive: Receive, send: Send, stream: Stream, warnings: Iterable[str]) -> None:
        """Send an answer in pieces. A watch also listens for its client's going."""
        headers = [(b"content-type", stream.content_type), *_COMMON, *stream.headers, *_warned(warnings)]
        listener: asyncio.Task[None] | None = None
        extension = scope.get("extensions", {}).get(EXTENSION)
        switched = watch_socket.handshake(dict(scope["headers"])) if extension is not None and "take_over" in extension else b""
        if stream.stop is not None and switched:
            self._api.streams.add(stream)
            try:
                await watch_socket.serve(stream, switched, extension["take_over"]())
            finally:
                self._api.streams.discard(stream)
                stream.release()
            return
        if stream.stop is not None:
            if extension is not None:
                stream.abort = extension["abort"]
            self._api.streams.add(stream)
            listener = asyncio.create_task(_until_gone(receive, stream.stop))
        try:
            await send({"type": "http.response.start", "status": stream.code, "headers": headers})
            async for piece in stream.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._api.streams.discard(stream)
            stream.release()
            if listener is not None:
                listener.cancel()


def _take_token(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Make a token among the protocols of a WebSocket what it would be elsewhere; nobody sees it there. Raises Failure (401)."""
    if b"authorization" in headers:
        return
    try:
        found = authentication.protocols_token(headers[b"sec-websocket-protocol"])
    except ValueError:
        raise status.unauthorized() from None
    if found is not None:
        headers |= {b"authorization": b"Bearer " + found[0].encode(), b"sec-websocket-protocol": found[1]}
        kept = [(name, value) for name, value in scope["headers"] if name != b"sec-websocket-protocol"]
        scope["headers"] = [*kept, (b"sec-websocket-protocol", found[1])]


def _metric_head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


async def _until_gone(receive: Receive, stop: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stop()


async def _body(headers: Mapping[bytes, bytes], receive: Receive, take: Callable[[], Awaitable[None]] | None) -> bytes:
    """Read a whole body; ``take`` is waited for when it is long. Raises Failure (413)."""
    announced = headers.get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > LIMIT:
        raise status.too_large(LIMIT)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        part = message.get("body", b"")
        if not message.get("more_body", False) and not parts:
            if len(part) > LIMIT:
                raise status.too_large(LIMIT)
            return bytes(part)
        parts.append(part)
        size += len(part)
        if size > LIMIT:
            raise status.too_large(LIMIT)
        if size > LONG_FROM and take is not None:
            await take()
            take = None
        if not message.get("more_body", False):
            return b"".join(parts)


@functools.lru_cache(maxsize=64)
def _headers(content_type: bytes) -> bytes:
    """Write out the headers of an answer that has none of its own."""
    return b"".join(b"%b: %b\r\n" % header for header in ((b"content-type", content_type), *_COMMON))


async def _send_whole(send: Send, found: Answer, warnings: Iterable[str], *, head: bool) -> None:
    length = str(len(found.body)).encode()
    common = () if any(name == b"cache-control" for name, _ in found.headers) else _COMMON
    headers = [(b"content-type", found.content_type), (b"content-length", length), *common, *found.headers, *_warned(warnings)]
    await send({"type": "http.response.start", "status": found.code, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head or found.code == 304 else found.body})


def _warned(warnings: Iterable[str]) -> list[tuple[bytes, bytes]]:
    """Warnings as RFC 7234 has them: code 299, no agent, a quoted text."""
    quoted = (text.translate(_QUOTED).encode("ascii", "replace").decode() for text in warnings)
    return [(b"warning", f'299 - "{text}"'.encode("latin-1")) for text in quoted]


_QUOTED = {ord('"'): '\\"', ord("\\"): "\\\\", **dict.fromkeys([*range(32), 127], " ")}


def _refusal(failure: status.Failure) -> Answer:
    return Answer(failure.code, orjson.dumps(failure.tree()), failure.headers)


def _version(version: str) -> dict[str, str]:
    major, minor, _ = version.removeprefix("v").split(".", 2)
    return {
        "major": major,
        "minor": minor,
        "gitVersion": version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "cpython",
        "platform": "linux/amd64",
    }
