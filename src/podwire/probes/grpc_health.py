"""A gRPC probe: grpc.health.v1.Health/Check over HTTP/2 with prior knowledge.

Two messages of one field each, so they are coded by hand: HealthCheckRequest { string service = 1 } and
HealthCheckResponse { ServingStatus status = 1 }, each behind gRPC's five bytes (compressed flag, length).

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md and doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING
from urllib.parse import unquote

from podwire.probes.http_get import USER_AGENT
from podwire.probes.result import ProbeResult, join_host_port, seconds, words_of

if TYPE_CHECKING:
    from h2.connection import H2Connection

CHECK = "/grpc.health.v1.Health/Check"
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
DEADLINE_EXCEEDED, UNIMPLEMENTED = 4, 12


async def grpc(host: str, port: int, service: str = "", timeout: float = 1.0) -> ProbeResult:
    """Ask ``host`` (an address) whether ``service`` is serving. ``timeout`` in seconds, for connection and answer together."""
    address = join_host_port(host, port)
    connected = False
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, port)
            connected = True
            try:
                return await _check(reader, writer, address, service, timeout)
            finally:
                writer.close()
    except TimeoutError:
        if connected:
            return ProbeResult(False, f"timeout: health rpc did not complete within {seconds(timeout)}")
        reason = "context deadline exceeded"
        return ProbeResult(False, f'timeout: failed to connect service "{address}" within {seconds(timeout)}: {reason}')
    except OSError as error:
        if connected:
            return ProbeResult(False, f"error: health rpc probe failed: {words_of(error)}")
        return ProbeResult(False, f'error: failed to connect service at "{address}": connect: {words_of(error)}')


class _Answer:
    """What came back on the one stream."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.status: int | None = None
        self.message = ""
        self.ended = False
        self.broken = ""

    def headers(self, fields: list[tuple[bytes, bytes]]) -> None:
        for name, value in fields:
            if name == b"grpc-status" and value.isdigit():
                self.status = int(value)
            elif name == b"grpc-message":
                self.message = unquote(value.decode("latin-1"))
            elif name == b":status" and value != b"200":
                self.broken = f"unexpected HTTP status code received from server: {value.decode()}"


async def _check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, service: str, timeout: float) -> ProbeResult:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.exceptions import ProtocolError

    connection = H2Connection(H2Configuration(client_side=True, header_encoding=None))
    connection.initiate_connection()
    fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", CHECK),
        (":authority", address),
        ("content-type", "application/grpc"),
        ("user-agent", USER_AGENT),
        ("te", "trailers"),
        ("grpc-timeout", f"{max(1, round(timeout * 1000))}m"),
    ]
    connection.send_headers(1, fields)
    connection.send_data(1, frame(encode_request(service)), end_stream=True)
    writer.write(connection.data_to_send())
    answer = _Answer()
    while not answer.ended:
        data = await reader.read(65536)
        if not data:
            answer.broken = answer.broken or "error reading from server: EOF"
            break
        try:
            _take(connection, data, answer)
        except ProtocolError as error:
            answer.broken = f"connection error: {error}"
            break
        writer.write(connection.data_to_send())
    return _judge(answer)


def _take(connection: H2Connection, data: bytes, answer: _Answer) -> None:
    from h2 import events

    for event in connection.receive_data(data):
        if isinstance(event, events.ResponseReceived | events.TrailersReceived):
            answer.headers([(bytes(n), bytes(v)) for n, v in event.headers or ()])
        elif isinstance(event, events.DataReceived):
            answer.data += event.data or b""
            connection.acknowledge_received_data(event.flow_controlled_length or 0, 1)
        elif isinstance(event, events.StreamEnded):
            answer.ended = True
        elif isinstance(event, events.StreamReset | events.ConnectionTerminated):
            answer.ended = True
            answer.broken = answer.broken or "stream terminated by the server"


def _judge(answer: _Answer) -> ProbeResult:
    if answer.status is None:
        return ProbeResult(False, f"error: health rpc probe failed: {answer.broken or 'server closed the stream without sending trailers'}")
    if answer.status == UNIMPLEMENTED:
        return ProbeResult(
            False, f"error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {answer.message}"
        )
    if answer.status == DEADLINE_EXCEEDED:
        return ProbeResult(False, f"timeout: health rpc did not complete: {answer.message}")
    if answer.status != 0:
        return ProbeResult(False, f"error: health rpc probe failed: code = {answer.status} desc = {answer.message}")
    try:
        status = decode_response(unframe(bytes(answer.data)))
    except ValueError as error:
        return ProbeResult(False, f"error: health rpc probe failed: {error}")
    if status == 1:
        return ProbeResult(True)
    name = STATUSES[status] if status < len(STATUSES) else str(status)
    return ProbeResult(False, f'service unhealthy (responded with "{name}")')


def frame(message: bytes) -> bytes:
    """Put gRPC's prefix before an uncompressed message."""
    return struct.pack("!BI", 0, len(message)) + message


def unframe(data: bytes) -> bytes:
    """Take the one message out of a unary body. Raises ValueError."""
    if len(data) < 5:
        raise ValueError("the answer holds no message")
    compressed, length = struct.unpack_from("!BI", data)
    if compressed or len(data) != 5 + length:
        raise ValueError("the answer is not one uncompressed message")
    return data[5:]


def encode_request(service: str) -> bytes:
    """Encode HealthCheckRequest; an empty service is left out, as proto3 does."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def decode_request(message: bytes) -> str:
    """Decode HealthCheckRequest: the service's name. Raises ValueError."""
    return next((value.decode(errors="replace") for number, value in _fields(message) if number == 1 and isinstance(value, bytes)), "")


def encode_response(status: int) -> bytes:
    """Encode HealthCheckResponse; 1 is SERVING."""
    return b"\x08" + _varint(status) if status else b""


def decode_response(message: bytes) -> int:
    """Decode HealthCheckResponse; an absent status is 0, UNKNOWN. Raises ValueError."""
    return next((value for number, value in _fields(message) if number == 1 and isinstance(value, int)), 0)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("the message ends within a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """Split a message into its fields: wire types 0 (number), 2 (bytes), and the fixed ones, which nobody reads."""
    fields: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _read_varint(data, at)
            fields.append((number, value))
            continue
        if wire == 2:
            size, at = _read_varint(data, at)
        elif wire in {1, 5}:
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"the message has a field of unknown wire type {wire}")
        if at + size > len(data):
            raise ValueError("the message ends within a field")
        fields.append((number, data[at : at + size]))
        at += size
    return fields
