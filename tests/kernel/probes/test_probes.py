"""Probes against real servers: what succeeds, what fails, and in which words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import ip_network

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded

from podwire import probes
from podwire.linux.network import Network
from podwire.pods.standins import tls
from podwire.probes import ProbeResult
from podwire.probes.grpc_health import encode_response, frame
from podwire.wire.rtnetlink import Link, Route, add, change

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def against(handler: Handler, probe: Callable[[int], Awaitable[ProbeResult]], **options: ssl.SSLContext) -> ProbeResult:
    """Serve on the loopback with ``handler`` and send one probe there."""
    with Network() as network:
        network.apply([change(Link("lo", up=True))])

    async def main() -> ProbeResult:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
        async with server:
            return await probe(server.sockets[0].getsockname()[1])

    return asyncio.run(main())


def says(response: str, seen: list[str] | None = None) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        if seen is not None:
            seen.append(request)
        path = request.split()[1]
        text = response if path != "/moved" else "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        writer.write(text.encode())
        await writer.drain()

    return handler


def get(path: str = "/", *headers: tuple[str, str], scheme: str = "http", timeout: float = 5) -> Callable[[int], Awaitable[ProbeResult]]:
    return lambda port: probes.http(f"{scheme}://127.0.0.1:{port}{path}", headers, timeout)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("status", [200, 204, 399])
def test_a_status_from_200_to_399_is_a_success(status: int) -> None:
    assert against(says(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"), get()).ok


@pytest.mark.parametrize("status", [199, 400, 404, 500])
def test_any_other_status_is_a_failure(status: int) -> None:
    if status == 199:  # an interim answer: the final one counts
        text, status = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", 503
    else:
        text = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"
    assert against(says(text), get()) == ProbeResult(False, f"HTTP probe failed with statuscode: {status}")


def test_the_request_is_the_kubelets() -> None:
    seen: list[str] = []
    assert against(says("HTTP/1.1 200 OK\r\n\r\nno length", seen), get("/ready?a=b", ("Host", "shop.example"), ("X-A", "1"))).ok
    assert seen[0].startswith("GET /ready?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: kube-probe/1.37\r\nAccept: */*\r\n")
    assert "X-A: 1\r\n" in seen[0]
    assert "Connection: close\r\n" in seen[0]


def test_a_redirect_is_followed_to_the_same_host_only() -> None:
    assert against(says("HTTP/1.1 302 X\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n"), get()) == ProbeResult(True)
    elsewhere = against(says("HTTP/1.1 302 X\r\nLocation: http://127.0.0.2/\r\nContent-Length: 2\r\n\r\nhi"), get())
    assert elsewhere == ProbeResult(True, "Probe terminated redirects, Response body: hi", warning=True)
    circle = against(says("HTTP/1.1 301 X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), get())
    assert not circle.ok
    assert circle.message.endswith("stopped after 10 redirects")


def test_failures_have_words() -> None:
    late = against(silent, get(timeout=0.05))
    assert late.message.endswith("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")

    async def closes(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    assert against(closes, get()).message.endswith('/": EOF')
    assert "malformed HTTP response" in against(says("SSH-2.0-x\r\n\r\n"), get()).message


def test_a_closed_port_is_refused_and_a_silent_network_times_out() -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True)), add(Link("a", "veth", peer=Link("b"), up=True)), change(Link("b", up=True))])
        network.apply([add(Route(ip_network("10.9.0.0/16"), link="a")), add(Route(ip_network("10.8.0.0/16"), type="unreachable"))])

    async def main() -> None:
        refused = await probes.http("http://127.0.0.1:9/x", (), 1)
        assert refused.message == 'Get "http://127.0.0.1:9/x": dial tcp 127.0.0.1:9: connect: connection refused'
        assert await probes.tcp("127.0.0.1", 9) == ProbeResult(False, "dial tcp 127.0.0.1:9: connect: connection refused")
        assert await probes.tcp("10.8.0.1", 9) == ProbeResult(False, "dial tcp 10.8.0.1:9: connect: no route to host")
        assert await probes.tcp("10.9.0.1", 9, 0.05) == ProbeResult(False, "dial tcp 10.9.0.1:9: i/o timeout")
        grpc = await probes.grpc("10.9.0.1", 9, "", 0.05)
        assert grpc.message == 'timeout: failed to connect service "10.9.0.1:9" within 50ms: context deadline exceeded'
        grpc = await probes.grpc("127.0.0.1", 9)
        assert grpc.message == 'error: failed to connect service at "127.0.0.1:9": connect: connection refused'

    asyncio.run(main())


def test_certificates_are_not_verified() -> None:
    answer = says("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert against(answer, get(scheme="https"), ssl=tls.context()).ok
    assert not against(answer, get(scheme="https")).ok  # a server that does not speak TLS


def test_a_tcp_probe_is_a_connection() -> None:
    assert against(silent, lambda port: probes.tcp("127.0.0.1", port)).ok


def health(status: int, code: str = "0", message: str = "") -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False))
        connection.initiate_connection()
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, StreamEnded):
                    connection.send_headers(1, [(":status", "200"), ("content-type", "application/grpc")])
                    if code == "0":
                        connection.send_data(1, frame(encode_response(status)))
                    connection.send_headers(1, [("grpc-status", code), ("grpc-message", message)], end_stream=True)
            writer.write(connection.data_to_send())
            await writer.drain()

    return handler


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (health(1), ""),
        (health(2), 'service unhealthy (responded with "NOT_SERVING")'),
        (health(0), 'service unhealthy (responded with "UNKNOWN")'),
        (
            health(1, "12", "unknown service"),
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service",
        ),
        (health(1, "5", "no%20such"), "error: health rpc probe failed: code = 5 desc = no such"),
        (silent, "timeout: health rpc did not complete within 500ms"),
        (says("HTTP/1.1 400 X\r\n\r\n"), ""),
    ],
)
def test_a_grpc_probe_asks_for_health(handler: Handler, words: str) -> None:
    result = against(handler, lambda port: probes.grpc("127.0.0.1", port, "shop", 0.5))
    if handler.__qualname__.startswith("says"):
        assert not result.ok
        assert result.message.startswith("error: health rpc probe failed")
    else:
        assert result == ProbeResult(not words, words)


def test_an_exec_probe_is_a_status() -> None:
    async def run(command: object) -> tuple[int, bytes]:
        if command == ["hang"]:
            await asyncio.Event().wait()
        if command == ["missing"]:
            raise FileNotFoundError(2, "No such file or directory")
        return (0, b"fine") if command == ["true"] else (1, b"no")

    async def main() -> None:
        assert await probes.execute(run, ["true"]) == ProbeResult(True)
        assert await probes.execute(run, ["false"]) == ProbeResult(False, "no")
        assert await probes.execute(run, ["missing"]) == ProbeResult(False, "error: No such file or directory")
        late = await probes.execute(run, ["hang"], 0.05)
        assert late == ProbeResult(False, 'command timed out: "hang" timed out after 50ms')

    asyncio.run(main())
