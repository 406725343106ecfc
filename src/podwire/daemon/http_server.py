"""uvicorn's protocol of one connection, for applications that take a connection over (``Connection: Upgrade``).

``taking_over`` is what the scope of such a request says of it: ``take_over`` gives the connection as a ``Duplex``, with what has arrived
after the request. Nothing of an answer may have been sent before, and nothing is afterwards: the application writes it itself. An answer to
such a request without taking over is its connection's last.

The head of a request has an end (``HEAD_LIMIT``), and so has what follows a body in chunks: bytes that bring neither a whole head nor a
piece of a body are counted. What follows a body is dropped: it is no header of the request, whose application may not have looked yet.

Requests that are sent before the one at hand is answered wait for it. They are few and small, or who sends them is cut off: reading does
not stop for them, since only who reads learns that the client has gone.

Source: RFC 9110 section 6.5.1, RFC 6585 section 5
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from podwire.daemon.duplex import Duplex

EXTENSION: Final = "podwire"
HEAD_LIMIT: Final = 1024 * 1024  # bytes, as upstream
AHEAD: Final = 256  # requests that a client may send before it has the answer to the first
_WAITING: Final = 64 * 1024  # bytes of the body of a request that waits
_LINGER_S: Final = 0.5  # as Go's server
_EARLY: Final = 256 * 1024  # bytes that may wait for the answer to the request before them


class UpgradableProtocol(HttpToolsProtocol):
    """See above."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._upgrading = False
        self._early: list[bytes] = []
        self._running: RequestResponseCycle | None = None  # the request that is worked on; ``cycle`` is the one that was read last
        self._fruitless = 0  # bytes since the last head or piece of a body

    def taking_over(self) -> dict[str, Any]:
        """What goes into the scope's extension."""
        return {"take_over": self._take_over}

    def data_received(self, data: bytes) -> None:
        if self._upgrading:
            self._wait(data)
            return
        self._unset_keepalive_if_required()
        self._fruitless += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrading = True
            self._wait(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        else:
            if self._fruitless > HEAD_LIMIT:
                self._refuse_head()

    def on_headers_complete(self) -> None:
        self._begin_request()
        super().on_headers_complete()
        self.flow.resume_reading()  # which has stopped if the request is not the first
        self.headers = []  # what comes after the body is put there and forgotten

    def _begin_request(self) -> None:
        """Note that a head is whole. Raises ValueError, which the parser gives up on, when too many wait before it."""
        self._fruitless = 0
        if len(self.pipeline) >= AHEAD:
            raise ValueError(f"more than {AHEAD} requests ahead of their answers")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is worked on, too, when others were sent after it."""
        super().connection_lost(exc)
        self.pipeline.clear()
        running, self._running = self._running, None
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()

    def on_body(self, body: bytes) -> None:
        self._fruitless = 0
        super().on_body(body)
        if self.cycle is not self._running and len(self.cycle.body) > _WAITING:
            raise ValueError("a long body before its turn")  # told to the parser, which gives up

    def _refuse_head(self) -> None:
        text = b"431 Request Header Fields Too Large"
        head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
        self.transport.write(b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (text, head, len(text), text))
        # Who is still sending is not reset before the answer has reached him.
        self.transport.pause_reading()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _wait(self, data: bytes) -> None:
        if data:
            self._early.append(data)
            if sum(map(len, self._early)) >= _EARLY:
                self.flow.pause_reading()

    def _take_over(self) -> Duplex:
        self.cycle.response_started = self.cycle.response_complete = True
        self.connections.discard(self)
        self.flow.resume_reading()
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
        duplex = Duplex()
        duplex.taken_over(self.transport, b"".join(self._early))
        return duplex


class CertifiedProtocol(UpgradableProtocol):
    """``scope["extensions"]["podwire"]`` also holds ``certificate``, the client's as ``ssl`` gives it, or None."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        self._certificate = tls.getpeercert() if tls is not None else None

    def on_headers_complete(self) -> None:
        more = self.taking_over() if self.parser.should_upgrade() else {}
        self.scope["extensions"] = {EXTENSION: {"certificate": self._certificate, **more}}  # type: ignore[dict-item]
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False
