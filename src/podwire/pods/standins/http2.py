"""HTTP/2 with prior knowledge as a stand-in speaks it: gRPC health, which is always SERVING, else what its part answers.

A gRPC call of any other service ends with UNIMPLEMENTED, as a server without that service says it. ``Watch`` answers once and
stays open, as its definition asks.

Sources: RFC 9113; https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

from collections.abc import Callable

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

from podwire.pods.standins.answering import Later
from podwire.pods.standins.http1 import MAXIMUM_BODY
from podwire.pods.standins.session import Answer, Place, Request, add_header
from podwire.probes.grpc_health import CHECK, encode_response, frame

WATCH = "/grpc.health.v1.Health/Watch"
SERVING = 1
UNIMPLEMENTED = "12"

Headers = list[tuple[str, str]]


class Http2:
    """One connection."""

    def __init__(self, place: Place, wake: Callable[[], None] = lambda: None) -> None:
        self.closing = False
        self._place = place
        self._later = Later(wake)
        self._connection = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self._connection.initiate_connection()
        self._requests: dict[int, Headers] = {}
        self._bodies: dict[int, bytes] = {}
        # Bodies that wait for the client to make room, by stream, with the trailers that end them (None: the stream stays open).
        self._waiting: dict[int, tuple[bytes, Headers | None]] = {}

    def receive(self, data: bytes) -> bytes:
        try:
            for event in self._connection.receive_data(data):
                self._take(event)
            self._flush()
        except ProtocolError:
            # The library has put the GOAWAY frame with the reason into what is to be sent.
            self.closing = True
        return self._connection.data_to_send()

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self._requests[event.stream_id or 0] = [(str(name), str(value)) for name, value in event.headers or ()]
        elif isinstance(event, events.DataReceived):
            self._connection.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id or 0)
            former = self._bodies.get(event.stream_id or 0, b"")
            self._bodies[event.stream_id or 0] = former + (event.data or b"")[: MAXIMUM_BODY - len(former)]
        elif isinstance(event, events.StreamEnded):
            self._respond(event.stream_id or 0)
        elif isinstance(event, events.StreamReset):
            for kept in (self._requests, self._bodies, self._waiting):
                kept.pop(event.stream_id or 0, None)
        elif isinstance(event, events.ConnectionTerminated):
            self.closing = True

    def _respond(self, stream: int) -> None:
        fields, sent = self._requests.pop(stream, None), self._bodies.pop(stream, b"")
        if fields is None:
            return  # reset before it ended
        pseudo = {name: value for name, value in fields if name.startswith(":")}
        headers: dict[str, str] = {}
        for name, value in fields:
            if not name.startswith(":"):
                add_header(headers, name, value)
        path, method = pseudo.get(":path", ""), pseudo.get(":method", "")
        if headers.get("content-type", "").startswith("application/grpc"):
            self._call(stream, path)
            return
        request = Request(method, path, pseudo.get(":authority", headers.get("host", "")), headers, sent)
        self._later.ask(self._place, request, lambda answer: self._answer(stream, answer, head=method == "HEAD"))

    def _answer(self, stream: int, answer: Answer, *, head: bool) -> None:
        bodyless = head or answer.status in {204, 304} or not answer.body
        fields = [(":status", str(answer.status)), ("content-type", answer.kind), ("content-length", str(len(answer.body)))]
        fields += [("server", answer.server), *((name.lower(), value) for name, value in answer.headers)]
        try:
            self._connection.send_headers(stream, fields, end_stream=bodyless)
        except (ProtocolError, KeyError):
            return  # the client has ended the stream, or the connection, while it waited
        if not bodyless:
            self._waiting[stream] = (answer.body, [])

    def close(self) -> None:
        self._later.close()

    def _call(self, stream: int, path: str) -> None:
        head = [(":status", "200"), ("content-type", "application/grpc")]
        if path not in {CHECK, WATCH}:
            # Trailers only: one block of headers that ends the stream.
            service, _, call = path.lstrip("/").partition("/")
            words = f"unknown method {call} for service {service}"
            self._connection.send_headers(stream, [*head, ("grpc-status", UNIMPLEMENTED), ("grpc-message", words)], end_stream=True)
            return
        self._connection.send_headers(stream, head)
        self._waiting[stream] = (frame(encode_response(SERVING)), None if path == WATCH else [("grpc-status", "0")])

    def _flush(self) -> None:
        """Send what the windows of stream and connection have room for."""
        for stream, (body, trailers) in list(self._waiting.items()):
            while body:
                room = min(self._connection.local_flow_control_window(stream), self._connection.max_outbound_frame_size)
                if room <= 0:
                    break
                self._connection.send_data(stream, body[:room])
                body = body[room:]
            if body:
                self._waiting[stream] = (body, trailers)
                continue
            del self._waiting[stream]
            if trailers:
                self._connection.send_headers(stream, trailers, end_stream=True)
            elif trailers is not None:
                self._connection.end_stream(stream)
