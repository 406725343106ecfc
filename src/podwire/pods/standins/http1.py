"""HTTP/1.0 and HTTP/1.1 as a stand-in speaks them: any method, kept-open and pipelined requests, answers in the order of the requests.

Of a request's body the first 64 KiB are kept, for the parts that read a form. A request that is none gets 400, one with more than 64 KiB of
headers 431, and the connection ends. Upgrades are passed over: the answer is an ordinary one.

Source: RFC 9112.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import httptools

from podwire.pods.standins.answering import REASONS, Later
from podwire.pods.standins.session import Answer, Place, Request, add_header

MAXIMUM_HEADERS = 64 * 1024
MAXIMUM_BODY = 64 * 1024
PIPELINED = 256
"""Requests that may wait behind one that is not answered yet."""


class TooLarge(Exception):
    """More headers than anyone should send."""


@dataclass
class _Turn:
    """A request's place in the line: its answer's bytes once they are there, and whether the connection goes on after them."""

    out: bytes | None = None
    keep: bool = True


class Http1:
    """One connection."""

    def __init__(self, place: Place, wake: Callable[[], None] = lambda: None) -> None:
        self.closing = False
        self._place = place
        self._later = Later(wake)
        self._turns: deque[_Turn] = deque()
        self._out = bytearray()
        self._ending = False  # nothing that comes after is a request
        self._begin()
        self._parser = httptools.HttpRequestParser(self)

    def _begin(self) -> None:
        self._url = bytearray()
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._size = 0

    def receive(self, data: bytes) -> bytes:
        while data and not self._ending:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # The parser stops behind a request that asks for another protocol; what follows is HTTP/1 to us.
                self._parser = httptools.HttpRequestParser(self)
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                large = isinstance(error.__context__, TooLarge) or isinstance(error.__cause__, TooLarge)
                self._refuse(431 if large else 400)
        while self._turns and (out := self._turns[0].out) is not None:
            self._out += out
            self.closing = not self._turns.popleft().keep
        out = bytes(self._out)
        self._out.clear()
        return out

    def close(self) -> None:
        self._later.close()

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
        if self._headers.get("expect", "").lower() == "100-continue" and not self._turns:
            self._out += b"HTTP/1.1 100 Continue\r\n\r\n"

    def on_body(self, body: bytes) -> None:
        self._body += body[: MAXIMUM_BODY - len(self._body)]

    def on_message_complete(self) -> None:
        if self._ending:
            return  # pipelined behind a request that asked for the end
        method = self._parser.get_method().decode("latin-1")
        request = Request(method, self._url.decode("latin-1"), self._headers.get("host", ""), self._headers, bytes(self._body))
        # CONNECT asks for a tunnel, which a stand-in is not the end of: nothing after it can be understood.
        keep = self._parser.should_keep_alive() and method != "CONNECT" and len(self._turns) < PIPELINED
        self._ending = not keep
        turn, version = _Turn(keep=keep), self._parser.get_http_version()
        self._turns.append(turn)
        self._later.ask(self._place, request, lambda answer: self._take(turn, answer, version, head=method == "HEAD"))

    # -----------------------------------------------------------------------------------------------------------------------

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAXIMUM_HEADERS:
            raise TooLarge

    def _refuse(self, status: int) -> None:
        if not self._ending:  # else the parser refuses what came behind the last request
            self._ending = True
            body = f"{status} {REASONS[status]}\n".encode()
            self._turns.append(turn := _Turn(keep=False))
            self._take(turn, Answer(body, status, "text/plain; charset=utf-8"), "1.1", head=False)

    def _take(self, turn: _Turn, answer: Answer, version: str, *, head: bool) -> None:
        if answer.close:
            turn.keep, self._ending = False, True
        # A status without a body has no length either (RFC 9110 section 8.6).
        bodyless = answer.status in {204, 304}
        lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Status')}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if not bodyless:
            lines += [f"Content-Type: {answer.kind}", f"Content-Length: {len(answer.body)}"]
        lines.append(f"Server: {answer.server}")
        # A client of HTTP/1.0 that asked to keep the connection wants to be told that it is kept (RFC 9112 section 9.3).
        if not turn.keep:
            lines.append("Connection: close")
        elif version == "1.0":
            lines.append("Connection: keep-alive")
        turn.out = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8") + (b"" if head or bodyless else answer.body)
