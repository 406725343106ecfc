"""The HTTP protocol of one connection: uvicorn's, with what it lacks and without what costs.

    the client's certificate     read once for each connection and put into the scope's extensions
    an answer in one piece       the head waits for the first piece of the body: one TLS record where two were
    idle connections             one timer for each connection, which looks when the last answer was, and none for each request

Here: bytes and connections. Not here: what an answer says (``app.py``), who a certificate is (``authentication.py``).

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from podwire.apiserver.app import EXCHANGE, EXTENSION
from podwire.apiserver.authentication import certified
from podwire.daemon.http_server import UpgradableProtocol

_VERSIONS = ("1.1", "1.0")
_WITHOUT_BODY = (204, 304)
_COPIED = 64 * 1024  # a piece of more bytes is not copied for what stands around it to share its TLS record


class Exchange(RequestResponseCycle):
    """One request and its answer."""

    _head = b""

    async def send(self, message: Any) -> None:
        """Send a part of the answer. What the application gives is well-formed: names and values of headers are not looked at again."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self.response_started = True
            self.waiting_for_100_continue = False
            self._head = self._written_head(message["status"], message.get("headers", ()))
            return
        if self.response_complete or not self.response_started:
            raise RuntimeError(f"{message['type']} outside of an answer")
        body, more = message.get("body", b""), message.get("more_body", False)
        head, self._head, tail = self._head, b"", b""
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            head = b"%b%x\r\n" % (head, len(body)) if body else head
            end = b"\r\n" if body else b""
            tail = end if more else end + b"0\r\n\r\n"
        self._write(head, body, tail)
        if not more:
            self._complete()

    async def answer(self, code: int, headers: bytes, body: bytes) -> None:
        """Send a whole answer, as most are. ``headers`` are written out, but for the length."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        self.response_started = True
        closing = b"" if self.keep_alive else b"connection: close\r\n"
        self._write(b"%b%b%bcontent-length: %d\r\n\r\n" % (STATUS_LINE[code], closing, headers, len(body)), body, b"")
        self._complete()

    def _write(self, head: bytes, body: bytes, tail: bytes) -> None:
        if len(body) < _COPIED:
            self.transport.write(b"%b%b%b" % (head, body, tail))
        else:
            self.transport.writelines((head, body, tail))

    def _complete(self) -> None:
        self.response_complete = True
        self.scope.pop(EXCHANGE, None)  # type: ignore[misc]  # what refers to itself would wait for the collector of garbage
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    def whole_body(self) -> bytes | None:
        """Give the body if all of it has come."""
        return None if self.more_body else bytes(self.body)

    def _written_head(self, code: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """Give the status line and the headers. An answer whose length is not known is chunked."""
        parts = [STATUS_LINE[code]]
        self.chunked_encoding = self.scope["method"] != "HEAD" and code not in _WITHOUT_BODY
        for name, value in headers:
            if name == b"content-length":
                self.chunked_encoding = False
            elif name == b"connection":
                self.keep_alive = False
                continue
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"transfer-encoding: chunked\r\n\r\n" if self.chunked_encoding else b"\r\n")
        return b"".join(parts)


class Protocol(UpgradableProtocol):
    """``scope["extensions"]["podwire"]`` holds ``certified`` (a Certified or None), ``abort`` (ends the connection), ``take_over``."""

    cycle: Exchange

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = certified(tls.getpeercert()) if tls is not None else None
        self._extensions: dict[str, Any] = {EXTENSION: {"certified": certificate, "abort": transport.abort}}
        self._answered = self.loop.time()
        self._look_later(self.timeout_keep_alive)

    def on_headers_complete(self) -> None:
        """Begin with a request as soon as its head is there; one that came too early waits for those before it."""
        scope, parser = self.scope, self.parser
        self._begin_request()
        scope["method"] = parser.get_method().decode("ascii")
        scope["http_version"] = version = parser.get_http_version()
        if version not in _VERSIONS:
            raise ValueError(version)  # told to the parser, which gives up
        if parser.should_upgrade() and self._should_upgrade():
            return
        path, _, query = self.url.partition(b"#")[0].partition(b"?")
        if not path.startswith(b"/"):  # an absolute URL, as proxies are sent
            path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
        text = path.decode("ascii")
        scope["path"] = urllib.parse.unquote(text) if "%" in text else text
        scope["raw_path"], scope["query_string"] = path, query
        scope["extensions"] = self._extensions
        if parser.should_upgrade():
            extension: dict[str, Any] = self._extensions[EXTENSION]
            scope["extensions"] = {EXTENSION: extension | self.taking_over()}  # type: ignore[dict-item]
        before = self.cycle
        self.cycle = Exchange(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and parser.should_keep_alive() and not parser.should_upgrade(),
            on_response=self.on_response_complete,
        )
        scope[EXCHANGE] = self.cycle  # type: ignore[literal-required]
        self.headers = []  # what comes after the body is put there and forgotten
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.pipeline.appendleft((self.cycle, self.app))

    def connection_lost(self, exc: Exception | None) -> None:
        unanswered = [cycle for cycle in (self._running, self.cycle) if cycle is not None]
        super().connection_lost(exc)
        for cycle in unanswered:  # see Exchange._complete
            cycle.scope.pop(EXCHANGE, None)  # type: ignore[misc]

    # An idle connection ends. uvicorn sets a timer with each answer and takes it back with each request.

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._answered = self.loop.time()
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _unset_keepalive_if_required(self) -> None:
        if self.parser is None or self.transport.is_closing():
            super()._unset_keepalive_if_required()

    def _look_later(self, after_s: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(after_s, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """End the connection if nothing was asked on it for too long; else look again when that may be so."""
        if self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        left = self.timeout_keep_alive - (0.0 if busy else self.loop.time() - self._answered)
        if left <= 0:
            self.transport.close()
        else:
            self._look_later(left)
