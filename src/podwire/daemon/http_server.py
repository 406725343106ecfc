"""uvicorn's protocol of one connection, for applications that take a connection over (``Connection: Upgrade``).

``taking_over`` is what the scope of such a request says of it: ``take_over`` gives the connection as a ``Duplex``, with what has arrived
after the request. Nothing of an answer may have been sent before, and nothing is afterwards: the application writes it itself. An answer to
such a request without taking over is its connection's last.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from podwire.daemon.duplex import Duplex

EXTENSION: Final = "podwire"
_EARLY: Final = 256 * 1024  # bytes that may wait for the answer to the request before them


class UpgradableProtocol(HttpToolsProtocol):
    """See above."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._upgrading = False
        self._early: list[bytes] = []

    def taking_over(self) -> dict[str, Any]:
        """What goes into the scope's extension."""
        return {"take_over": self._take_over}

    def data_received(self, data: bytes) -> None:
        if self._upgrading:
            self._wait(data)
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgrading = True
            self._wait(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

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
