"""What a stand-in says, byte for byte, without a socket."""

from __future__ import annotations

import json
import ssl

import pytest
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from podwire.pods.standins.connection import session_for
from podwire.pods.standins.http1 import Http1
from podwire.pods.standins.http2 import Http2
from podwire.pods.standins.messages import Role
from podwire.pods.standins.session import PREFACE, Part, Place, Speech, recognise
from podwire.pods.standins.tls import Tls
from podwire.probes.grpc_health import CHECK, encode_request, frame

ROLE = Role(uid="u1", name="web", namespace="default", ip="10.4.0.5", node="n1", zone="z1", service_account="default")
PLACE = Place(ROLE, 8080, "server", ("10.4.1.7", 40000), Part())


def bodies(stream: bytes) -> list[dict[str, object]]:
    found = []
    while stream:
        head, _, stream = stream.partition(b"\r\n\r\n")
        size = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        found.append(json.loads(stream[:size]))
        stream = stream[size:]
    return found


@pytest.mark.parametrize(
    ("first", "speech"),
    [
        (PREFACE, Speech.HTTP2),
        (PREFACE + b"\0", Speech.HTTP2),
        (b"PRI * HT", Speech.UNDECIDED),
        (b"GET / HTTP/1.1\r\n", Speech.HTTP1),
        (b"G", Speech.UNDECIDED),
        (b"GET ", Speech.UNDECIDED),
        (b"OPTIONS * HTTP/1.1", Speech.HTTP1),
        (b"GET http://a/ HTTP/1.1", Speech.HTTP1),
        (b"CONNECT a.b:443 HTTP/1.1", Speech.HTTP1),
        (b"VERSION-CONTROL /x", Speech.HTTP1),
        (b"HELLO WORLD, HERE I AM", Speech.ECHO),
        (b"hello", Speech.ECHO),
        (b"\x16\x03\x01", Speech.TLS),
        (b"\x16\x01", Speech.ECHO),
        (b"*1\r\n$4\r\nPING\r\n", Speech.ECHO),
    ],
)
def test_a_protocol_is_told_by_its_first_bytes(first: bytes, speech: Speech) -> None:
    assert recognise(first) is speech


@given(st.sampled_from([PREFACE, b"GET /a HTTP/1.1\r\n", b"DELETE http://x/", b"CONNECT a:1 HTTP/1.1", b"\x16\x03\x03"]))
def test_no_prefix_of_a_request_is_taken_for_something_else(text: bytes) -> None:
    final = recognise(text)
    assert {recognise(text[:end]) for end in range(1, len(text))} <= {Speech.UNDECIDED, final}


def test_an_answer_says_who_where_and_what() -> None:
    out = Http1(PLACE).receive(b"GET /a?b=c HTTP/1.1\r\nHost: web.default\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    assert bodies(out) == [
        {
            "pod": {"name": "web", "namespace": "default", "ip": "10.4.0.5", "uid": "u1", "serviceAccount": "default"},
            "container": "server",
            "node": "n1",
            "zone": "z1",
            "port": 8080,
            "caller": {"address": "10.4.1.7", "port": 40000},
            "host": "web.default",
            "method": "GET",
            "path": "/a?b=c",
            "headers": {"host": "web.default", "x-a": "1, 2"},
        }
    ]


@given(st.integers(1, 400))
def test_pipelined_requests_are_answered_in_order_however_they_are_cut(size: int) -> None:
    requests = b"".join(b"POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nHELLO" % number for number in range(5))
    session = Http1(PLACE)
    out = b"".join(session.receive(requests[at : at + size]) for at in range(0, len(requests), size))
    assert [body["path"] for body in bodies(out)] == [f"/{number}" for number in range(5)]
    assert not session.closing


def test_a_connection_closes_when_the_client_asks_and_answers_nothing_after() -> None:
    session = Http1(PLACE)
    out = session.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert session.closing
    assert len(bodies(out)) == 1


def test_head_has_no_body_and_http_1_0_closes() -> None:
    session = Http1(PLACE)
    out = session.receive(b"HEAD / HTTP/1.0\r\n\r\n")
    assert out.endswith(b"\r\n\r\n")
    assert b"Connection: close" in out
    assert session.closing


def test_an_upgrade_is_passed_over() -> None:
    session = Http1(PLACE)
    upgrade = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    out = session.receive(upgrade + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [body["path"] for body in bodies(out)] == ["/ws", "/2"]


def test_expectations_are_met_before_the_body() -> None:
    session = Http1(PLACE)
    out = session.receive(b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert out == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert len(bodies(session.receive(b"ab"))) == 1


@pytest.mark.parametrize(
    ("text", "status"),
    [(b"GET / HTTP/9.9\r\n\r\n", b"400"), (b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000 + b"\r\n\r\n", b"431")],
)
def test_a_request_that_is_none_is_refused(text: bytes, status: bytes) -> None:
    session = Http1(PLACE)
    assert session.receive(text).startswith(b"HTTP/1.1 " + status)
    assert session.closing


class Client:
    """An HTTP/2 client without a socket."""

    def __init__(self) -> None:
        self.connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.connection.initiate_connection()
        self.session = Http2(PLACE)
        self.events: list[events.Event] = []

    def ask(self, stream: int, path: str, kind: str = "", body: bytes = b"") -> None:
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "web")]
        self.connection.send_headers(stream, [*fields, ("content-type", kind)] if kind else fields, end_stream=not body)
        if body:
            self.connection.send_data(stream, body, end_stream=True)
        self.exchange()

    def exchange(self) -> None:
        for _ in range(4):
            if said := self.session.receive(self.connection.data_to_send()):
                self.events += self.connection.receive_data(said)

    def body(self, stream: int) -> bytes:
        return b"".join(e.data or b"" for e in self.events if isinstance(e, events.DataReceived) and e.stream_id == stream)

    def headers(self, stream: int) -> dict[str, str]:
        kinds = (events.ResponseReceived, events.TrailersReceived)
        return {str(k): str(v) for e in self.events if isinstance(e, kinds) and e.stream_id == stream for k, v in e.headers or ()}

    def ended(self, stream: int) -> bool:
        return any(isinstance(e, events.StreamEnded) and e.stream_id == stream for e in self.events)


def test_http2_answers_json() -> None:
    client = Client()
    client.ask(1, "/x")
    client.ask(3, "/y")
    assert json.loads(client.body(1))["path"] == "/x"
    assert json.loads(client.body(3))["host"] == "web"
    assert client.ended(1)
    assert client.ended(3)


def test_grpc_health_is_serving_and_other_services_are_not_implemented() -> None:
    client = Client()
    client.ask(1, CHECK, "application/grpc", frame(encode_request("shop")))
    assert client.body(1) == b"\0\0\0\0\x02\x08\x01"
    assert client.headers(1)["grpc-status"] == "0"
    client.ask(3, "/shop.Cart/Get", "application/grpc+proto", frame(b""))
    assert client.headers(3)["grpc-status"] == "12"
    client.ask(5, "/grpc.health.v1.Health/Watch", "application/grpc", frame(b""))
    assert client.body(5) == b"\0\0\0\0\x02\x08\x01"
    assert not client.ended(5)


def test_an_http2_body_waits_for_the_clients_window() -> None:
    client = Client()
    client.connection.update_settings({4: 10})  # SETTINGS_INITIAL_WINDOW_SIZE
    client.ask(1, "/narrow")
    assert len(client.body(1)) == 10
    client.connection.increment_flow_control_window(100_000, 1)
    client.exchange()
    assert json.loads(client.body(1))["path"] == "/narrow"


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_end_or_answer(data: bytes) -> None:
    for session in (Http1(PLACE), Http2(PLACE), Tls(lambda first: session_for(PLACE, recognise(first)))):
        session.receive(data)


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_tls_carries_any_other_session(protocol: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing)
    server = Tls(lambda first: session_for(PLACE, recognise(first)))
    for _ in range(4):
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            incoming.write(server.receive(outgoing.read()))
    assert client.selected_alpn_protocol() == protocol
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" if protocol == "http/1.1" else PREFACE)
    incoming.write(server.receive(outgoing.read()))
    said = client.read(65536)
    assert said.startswith(b"HTTP/1.1 200") if protocol == "http/1.1" else said[3] == 4  # a SETTINGS frame
    assert server.closing is (protocol == "http/1.1")
