"""What a stand-in says on one connection, without any I/O: bytes in, bytes out.

A session takes what arrived and returns what to send; ``closing`` says that nothing follows. Which session it is is told by
the first bytes: the preface of HTTP/2, the request line of HTTP/1, a TLS record, else echo.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from podwire.pods.standins.messages import Role

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# A method, one space, and a target as RFC 9112 section 3.2 has them: a path, "*", an absolute URI or (CONNECT) an authority.
_REQUEST = re.compile(rb"[A-Z][A-Z-]{0,19} (?:/|\*|http|[A-Za-z0-9.\[\]:-]+ HTTP/)")
_MAYBE_REQUEST = re.compile(rb"[A-Z][A-Z-]{0,19}(?: (?:h|ht|htt|[A-Za-z0-9.\[\]:-]{0,255}(?: H?T{0,2}P?)?)?)?\Z")


class Speech(enum.Enum):
    """What the first bytes of a connection are. UNDECIDED: more bytes could still make them a request."""

    UNDECIDED = enum.auto()
    HTTP1 = enum.auto()
    HTTP2 = enum.auto()
    TLS = enum.auto()
    ECHO = enum.auto()


def recognise(first: bytes) -> Speech:
    """Tell a protocol by its first bytes."""
    if first.startswith(PREFACE):
        return Speech.HTTP2
    if PREFACE.startswith(first):
        return Speech.UNDECIDED
    if first[0] == 0x16:
        # A TLS record of type handshake, version 3.x (RFC 8446 section 5.1).
        if len(first) == 1:
            return Speech.UNDECIDED
        return Speech.TLS if first[1] == 3 else Speech.ECHO
    if _REQUEST.match(first):
        return Speech.HTTP1
    return Speech.UNDECIDED if _MAYBE_REQUEST.match(first) else Speech.ECHO


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request: ``target`` is what was asked for, as it was written; header names are in lower case."""

    method: str
    target: str
    host: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target's path, decoded, without what a proxy's request has in front of it."""
        return unquote(urlsplit(self.target).path) or "/"

    @property
    def query(self) -> dict[str, str]:
        """The first value of each field of the query, and of a form in the body."""
        fields = parse_qsl(urlsplit(self.target).query, keep_blank_values=True)
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            fields = parse_qsl(self.body.decode("latin-1"), keep_blank_values=True) + fields
        return dict(reversed(fields))


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. ``kind`` is its media type; ``close``: the connection ends with it."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    server: str = "podwire"
    close: bool = False


class Part:
    """Who is behind the ports of a container, and keeps what that remembers as long as it runs. This one is the plain one.

    The kind of session is told by a connection's first bytes, unless the part speaks of itself (``talk``).
    """

    def respond(self, place: Place, request: Request) -> Answer | Awaitable[Answer]:
        """Answer an HTTP request; what takes time is awaited."""
        return Answer(who_answers(place, request))

    def served(self, place: Place, request: Request, answer: Answer) -> None:
        """A request has its answer."""

    def talk(self, place: Place) -> Session | None:  # noqa: ARG002
        """Give the session of a new connection where no protocol has to be guessed; it is asked for what it says at once."""
        return None

    def datagram(self, place: Place, data: bytes) -> bytes | None:  # noqa: ARG002
        """Answer a datagram; None is silence."""
        return data


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connection was accepted: the Pod, the port and its container, who called, and who answers."""

    role: Role
    port: int
    container: str
    caller: tuple[str, int]
    part: Part


class Session(Protocol):
    """``closing``: nothing follows what was returned last."""

    closing: bool

    def receive(self, data: bytes) -> bytes:
        """Take what arrived, perhaps nothing, and return what to send."""

    def close(self) -> None:
        """The connection has ended: nothing is waited for any more."""


class Echo:
    """Says what it hears."""

    closing = False

    def receive(self, data: bytes) -> bytes:
        return data

    def close(self) -> None:
        """Nothing is under way."""


def plain_address(address: str) -> str:
    """The address as its family writes it: without the IPv6 form that a socket of both families gives to an IPv4 one."""
    return address.removeprefix("::ffff:")


def who_answers(place: Place, request: Request) -> bytes:
    """The body of a plain answer: who answers, to whom, and what was asked, as one line of JSON."""
    role = place.role
    pod = {"name": role.name, "namespace": role.namespace, "ip": role.ip, "uid": role.uid, "serviceAccount": role.service_account}
    body = {
        "pod": pod,
        "container": place.container,
        "node": role.node,
        "zone": role.zone,
        "port": place.port,
        "caller": {"address": place.caller[0], "port": place.caller[1]},
        "host": request.host,
        "method": request.method,
        "path": request.target,
        "headers": request.headers,
    }
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)


def add_header(headers: dict[str, str], name: str, value: str) -> None:
    """Names in lower case, since they have no case; a repeated one is joined by a comma (RFC 9110 section 5.3)."""
    name = name.lower()
    headers[name] = f"{headers[name]}, {value}" if name in headers else value
