"""The stand-ins' process with real sockets in real namespaces: protocols, ports that change, ports that cannot be had, its limits."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import tempfile
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from podwire import probes
from podwire.linux import namespaces, unix
from podwire.linux.network import Network
from podwire.pods.standins.client import Standins, StandinsGone, StandinsRefused
from podwire.pods.standins.messages import Port, Role
from podwire.pods.standins.process import raise_open_files, serve
from podwire.wire.rtnetlink import Link, change

ROLE = Role(uid="u1", name="web", namespace="default", ip="127.0.0.1", node="n1", zone="z1")


def playing(scenario: Callable[[Standins, int], Awaitable[None]]) -> None:
    """Run a scenario with a connection to a stand-ins' process and this namespace's descriptor."""
    with Network() as network:
        network.apply([change(Link("lo", up=True))])

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path, stop = f"{folder}/standins.sock", asyncio.Event()
            with unix.listen(path) as listener:
                task = asyncio.create_task(serve(listener, stop))
                standins = Standins.connect(path)
                try:
                    await scenario(standins, namespaces.own_network())
                finally:
                    standins.close()
                    stop.set()
                    await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def exchange(port: int, said: bytes, host: str = "127.0.0.1") -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(said)
    answer = await reader.read(65536)
    writer.close()
    return answer


def test_every_protocol_on_one_port() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        assert await standins.play(ROLE, [Port("TCP", 80, "main"), Port("UDP", 80, "main")], namespace) == {}
        text = await exchange(80, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = json.loads(text.partition(b"\r\n\r\n")[2])
        assert (answer["pod"]["name"], answer["container"], answer["caller"]["address"]) == ("web", "main", "127.0.0.1")
        assert (await probes.grpc("127.0.0.1", 80, "any")).ok
        assert (await probes.http("https://127.0.0.1:80/")).ok
        assert await exchange(80, b"\0\1\2 anything") == b"\0\1\2 anything"
        assert await exchange(80, b"HELLO") == b"HELLO"  # could become a request, and does not
        assert b"caller" in await exchange(80, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "::1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            udp.connect(("127.0.0.1", 80))
            udp.setblocking(False)
            udp.send(b"ping")
            assert await asyncio.get_running_loop().sock_recv(udp, 100) == b"ping"

    playing(scenario)


def test_a_request_may_come_in_pieces() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        await standins.play(ROLE, [Port("TCP", 80)], namespace)
        reader, writer = await asyncio.open_connection("127.0.0.1", 80)
        for piece in (b"GE", b"T", b" / HT", b"TP/1.1\r\nHo", b"st: a\r\n\r\n"):
            writer.write(piece)
            await asyncio.sleep(0)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()

    playing(scenario)


def test_ports_change_and_connections_end_with_the_pod() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        await standins.play(ROLE, [Port("TCP", 80), Port("TCP", 81)], namespace)
        reader, writer = await asyncio.open_connection("127.0.0.1", 80)
        assert await standins.play(ROLE, [Port("TCP", 80, "named"), Port("TCP", 82)], namespace) == {}
        with pytest.raises(ConnectionRefusedError):
            await exchange(81, b"x")
        assert await exchange(82, b"x y") == b"x y"
        writer.write(b"still here")
        assert await reader.read(100) == b"still here"
        assert (await standins.list())["u1"] == (Port("TCP", 80, "named"), Port("TCP", 82))
        await standins.stop("u1")
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await exchange(80, b"x")
        assert await standins.list() == {}
        await standins.stop("u1")

    playing(scenario)


def test_a_port_that_cannot_be_had_is_named_and_the_others_are_served() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        with socket.create_server(("127.0.0.1", 80)):
            failures = await standins.play(ROLE, [Port("TCP", 80), Port("TCP", 81)], namespace)
        assert failures == {"TCP/80": "the port is in use by another program in the Pod's network"}
        assert await exchange(81, b"x y") == b"x y"
        assert await standins.play(ROLE, [Port("TCP", 80), Port("TCP", 81)], namespace) == {}  # again, when it is free

    playing(scenario)


def test_each_pod_has_ports_of_its_own() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        other = namespaces.create_network()
        await standins.play(ROLE, [Port("TCP", 80)], namespace)
        await standins.play(Role(uid="u2", name="other"), [Port("TCP", 80)], other)
        assert b'"name":"web"' in await exchange(80, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await standins.stop("u1")
        assert list(await standins.list()) == ["u2"]
        with pytest.raises(ConnectionRefusedError):
            await exchange(80, b"x")

    playing(scenario)


def test_a_process_without_open_files_says_so() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
        try:
            failures = await standins.play(ROLE, [Port("TCP", 1000 + number) for number in range(20)], namespace)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
        assert 0 < len(failures) < 20
        assert all("no open file left" in reason for reason in failures.values())

    playing(scenario)


def test_open_files_are_raised_to_the_hard_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    assert raise_open_files() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard


def test_many_pods_are_listed_in_pages_and_all_are_played() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        raise_open_files()
        roles = [Role(uid=f"u{number}", name=f"pod-{number}") for number in range(600)]
        for number, role in enumerate(roles):
            assert await standins.play(role, [Port("TCP", 10000 + number)], namespace) == {}
        assert len(await standins.list()) == 600

    playing(scenario)


def test_what_cannot_be_done_is_refused_and_the_connection_goes_on() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        with socket.socket() as nothing, pytest.raises(StandinsRefused, match="enter the network namespace"):
            await standins.play(ROLE, [Port("TCP", 80)], nothing.fileno())
        assert await standins.play(ROLE, [Port("TCP", 80)], namespace) == {}
        standins.close()
        with pytest.raises(StandinsGone):
            await standins.list()

    playing(scenario)
    with pytest.raises(StandinsGone, match="No such file"):
        asyncio.run(_connect_nowhere())


async def _connect_nowhere() -> None:
    Standins.connect("/nowhere/standins.sock")
