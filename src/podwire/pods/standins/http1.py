"""HTTP/1.0 and HTTP/1.1 as a stand-in speaks them: any method, kept-open and pipelined requests, status 200, JSON.

Request bodies are read and thrown away. A request that is none gets 400, one with more than 64 KiB of headers 431, and the
connection ends. Upgrades are passed over: the answer is an ordinary one.

Source: RFC 9112.
"""

from __future__ import annotations

import httptools

from podwire.pods.standins.session import Place, add_header, answer

MAXIMUM_HEADERS = 64 * 1024


class TooLarge(Exception):
    """More headers than anyone should send."""


class Http1:
    """One connection."""

    def __init__(self, place: Place) -> None:
        self.closing = False
        self._place = place
        self._out = bytearray()
        self._begin()
        self._parser = httptools.HttpRequestParser(self)

    def _begin(self) -> None:
        self._url = bytearray()
        self._headers: dict[str, str] = {}
        self._size = 0

    def receive(self, data: bytes) -> bytes:
        while data and not self.closing:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # The parser stops behind a request that asks for another protocol; what follows is HTTP/1 to us.
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                large = isinstance(error.__context__, TooLarge) or isinstance(error.__cause__, TooLarge)
                self._refuse("431 Request Header Fields Too Large" if large else "400 Bad Request")
        out = bytes(self._out)
        self._out.clear()
        return out

    # What the parser calls ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        add_header(self._headers, name.decode("latin-1"), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._out += b"HTTP/1.1 100 Continue\r\n\r\n"

    def on_message_complete(self) -> None:
        if self.closing:
            return  # pipelined behind a request that asked for the end
        method = self._parser.get_method().decode("latin-1")
        body = answer(self._place, method, self._headers.get("host", ""), self._url.decode("latin-1"), self._headers)
        # CONNECT asks for a tunnel, which a stand-in is not the end of: nothing after it can be understood.
        keep = self._parser.should_keep_alive() and method != "CONNECT"
        self._respond("200 OK", b"application/json", body, keep=keep, head=method == "HEAD")

    # -----------------------------------------------------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAXIMUM_HEADERS:
            raise TooLarge

    def _refuse(self, status: str) -> None:
        if not self.closing:  # else the parser refuses what came behind the last request
            self._respond(status, b"text/plain; charset=utf-8", status.encode() + b"\n", keep=False)

    def _respond(self, status: str, kind: bytes, body: bytes, *, keep: bool, head: bool = False) -> None:
        self.closing = not keep
        self._out += b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nServer: podwire\r\n" % (status.encode(), kind, len(body))
        # A client of HTTP/1.0 that asked to keep the connection wants to be told that it is kept (RFC 9112 section 9.3).
        if not keep:
            self._out += b"Connection: close\r\n"
        elif self._parser.get_http_version() == "1.0":
            self._out += b"Connection: keep-alive\r\n"
        self._out += b"\r\n"
        if not head:
            self._out += body
