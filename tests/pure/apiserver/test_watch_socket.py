"""Watches over a WebSocket, as browsers ask for them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from podwire.apiserver import watch_socket
from podwire.wire import websocket
from running_apiserver import ApiServer

DEADLINE_S = 20.0
UPGRADE = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


class Socket:
    """A client: the head of the answer, then the payloads of its messages."""

    def __init__(self, connection: ssl.SSLSocket, path: str, more: bytes = b"") -> None:
        self.connection = connection
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n".encode() + UPGRADE + more + b"\r\n")
        self._session = websocket.Session(server=False)
        self._events: list[websocket.Event] = []
        rest = b""
        while b"\r\n\r\n" not in rest:
            piece = connection.recv(65536)
            assert piece, rest
            rest += piece
        self.head, _, rest = rest.partition(b"\r\n\r\n")
        if self.head.startswith(b"HTTP/1.1 101 "):
            self._events += self._session.receive(rest)

    def say(self, payload: bytes, opcode: int) -> None:
        self.connection.sendall(websocket.frame(payload, opcode, mask=os.urandom(4)))

    def message(self) -> bytes | int:
        """The next whole message, or the code with which the server closes."""
        whole = b""
        while True:
            while not self._events:
                data = self.connection.recv(65536)
                assert data, "the connection ended without a word"
                self._events += self._session.receive(data)
            event = self._events.pop(0)
            if isinstance(event, websocket.Closed):
                return event.code
            if isinstance(event, websocket.Piece):
                assert event.text
                whole += event.payload
                if event.last:
                    return whole

    def event(self) -> Any:
        message = self.message()
        assert isinstance(message, bytes)
        return json.loads(message)


@contextlib.contextmanager
def connected(server: ApiServer, path: str, more: bytes = b"") -> Iterator[Socket]:
    with (
        socket.create_connection(("127.0.0.1", server.port), DEADLINE_S) as plain,
        server.context().wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        yield Socket(connection, path, more)


def test_each_event_is_a_message(call: Any, server: ApiServer, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for name in ("a", "b"):
        call("POST", path, {"metadata": {"name": name}})
    with connected(server, f"{path}?watch=1", b"sec-websocket-protocol: base64.binary.k8s.io\r\n") as client:
        assert client.head.startswith(b"HTTP/1.1 101 ")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in client.head
        assert b"Sec-WebSocket-Protocol: base64.binary.k8s.io" in client.head
        found = [client.event() for _ in range(2)]
        assert [(one["type"], one["object"]["metadata"]["name"]) for one in found] == [("ADDED", "a"), ("ADDED", "b")]
        client.say(b"what a client says", websocket.TEXT)
        call("DELETE", f"{path}/a")
        gone = client.event()
        assert (gone["type"], gone["object"]["metadata"]["name"]) == ("DELETED", "a")


def watches(call: Any) -> int:
    text = call("GET", "/metrics").tree.decode()
    return int(next(line for line in text.splitlines() if line.startswith("apiserver_longrunning_requests ")).split()[1])


@pytest.mark.parametrize(("payload", "opcode", "code"), [(b"\x03\xe8", websocket.CLOSE, 1000), (b"", 3, 1002)], ids=["leave", "nonsense"])
def test_a_watch_ends_with_its_client(call: Any, server: ApiServer, namespace: str, payload: bytes, opcode: int, code: int) -> None:
    before = watches(call)
    with connected(server, f"/api/v1/namespaces/{namespace}/configmaps?watch=1") as client:
        assert watches(call) == before + 1
        client.say(payload, opcode)
        assert client.message() == code
        while client.connection.recv(65536):
            pass
        assert watches(call) == before


def test_a_watch_that_is_over_says_so(server: ApiServer, namespace: str) -> None:
    with connected(server, f"/api/v1/namespaces/{namespace}/configmaps?watch=1&timeoutSeconds=1") as client:
        assert client.message() == 1000


def test_who_may_not_watch_is_told_in_plain_words(server: ApiServer, namespace: str) -> None:
    with connected(server, f"/api/v1/namespaces/{namespace}/configmaps?watch=1", b"impersonate-user: nobody\r\n") as client:
        assert client.head.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"upgrade": b"websocket"},
        {b"upgrade": b"SPDY/3.1", b"sec-websocket-key": b"a", b"sec-websocket-version": b"13"},
        {b"upgrade": b"websocket", b"sec-websocket-key": b"a", b"sec-websocket-version": b"8"},
    ],
)
def test_what_is_no_handshake_is_answered_as_ever(headers: dict[bytes, bytes]) -> None:
    assert watch_socket.handshake(headers) == b""
