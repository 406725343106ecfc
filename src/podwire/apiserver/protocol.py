"""The HTTP protocol of one connection: uvicorn's, and the client's certificate beside it.

uvicorn does not tell an application who is at the other end of a TLS connection; this subclass puts it into the scope's extensions, read
once for each connection, together with a way to end a connection whose client does not read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from podwire.apiserver.app import EXTENSION
from podwire.apiserver.authentication import certificate_user


class Protocol(HttpToolsProtocol):
    """``scope["extensions"]["podwire"]`` holds ``user`` (a User or None) and ``abort`` (ends the connection at once)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        user = certificate_user(tls.getpeercert()) if tls is not None else None
        self._extensions: dict[str, Any] = {EXTENSION: {"user": user, "abort": transport.abort}}

    def on_headers_complete(self) -> None:
        self.scope["extensions"] = self._extensions
        super().on_headers_complete()
