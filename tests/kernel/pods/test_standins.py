"""The stand-ins' process with real sockets in real namespaces: protocols, ports that change, ports that cannot be had, its limits."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from podwire import probes
from podwire.linux import namespaces, unix
from podwire.linux.network import Network
from podwire.pods.standins.client import Standins, StandinsGone, StandinsRefused
from podwire.pods.standins.messages import Character, Ended, Port, Role
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


def told(**annotations: str) -> Role:
    return Role(uid="u1", name="web", ip="127.0.0.1", told={name.replace("_", "-"): value for name, value in annotations.items()})


def test_what_annotations_say_holds_at_once_also_for_open_connections() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        port = [Port("TCP", 80, "main")]
        await standins.play(told(), port, namespace)
        reader, writer = await asyncio.open_connection("127.0.0.1", 80)

        async def status() -> bytes:
            writer.write(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            return (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]

        assert await status() == b"200"
        await standins.play(told(status="503", delay="5ms"), port, namespace)
        assert await status() == b"503"
        await standins.play(told(hang="true"), port, namespace)
        writer.write(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readline()
        writer.close()

    playing(scenario)


def test_ports_that_refuse_drop_and_reset() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        ports = [Port("TCP", number, "main") for number in (80, 81, 82, 83)] + [Port("UDP", 80, "main")]
        await standins.play(told(refuse="80", drop="81", reset="82"), ports, namespace)
        with pytest.raises(ConnectionRefusedError):
            await exchange(80, b"x y")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await exchange(81, b"x y")
        with pytest.raises(ConnectionResetError):
            await exchange(82, b"x y")
        assert await exchange(83, b"x y") == b"x y"
        await standins.play(told(), ports, namespace)  # and back
        for number in (80, 81, 82):
            assert await exchange(number, b"x y") == b"x y"

    playing(scenario)


def test_agnhost_dials_by_the_names_of_its_pod_and_ends_when_asked() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        one = Character("main", "agnhost", words=("netexec", "--http-port=80", "--udp-port=81"))
        role = Role(uid="u1", name="web", ip="127.0.0.1", hostname="web-0", characters=(one,), hosts="127.0.0.1\tothers\n")
        ports = [Port("TCP", 80, "main"), Port("UDP", 81, "main")]
        assert await standins.play(role, ports, namespace) == {}

        async def get(target: str) -> tuple[bytes, object]:
            head, _, body = (await exchange(80, f"GET {target} HTTP/1.0\r\n\r\n".encode())).partition(b"\r\n\r\n")
            return head.split(b" ")[1], json.loads(body)

        both = [("http", 80, "hostname"), ("udp", 81, "hostname")]
        for protocol, port, request in both:
            found = await get(f"/dial?host=others&protocol={protocol}&port={port}&request={request}&tries=2")
            assert found == (b"200", {"responses": ["web-0", "web-0"]})
        status, tree = await get("/dial?host=others&port=9&request=/")
        assert (status, tree) == (b"417", {"errors": ["dial http others:9: connection refused"]})
        status, tree = await get("/dial?host=nobody&port=80&request=/")
        assert (status, tree) == (b"417", {"errors": ["dial http nobody:80: lookup nobody: no name server answered"]})

    playing(scenario)


def test_a_container_that_is_asked_to_end_says_so() -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True))])

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            path, stop = f"{folder}/standins.sock", asyncio.Event()
            with unix.listen(path) as listener:
                task = asyncio.create_task(serve(listener, stop))
                heard: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
                standins = Standins.connect(path, heard.set_result)
                one = Character("main", "agnhost", words=("netexec",))
                role = Role(uid="u1", characters=(one,))
                await standins.play(role, [Port("TCP", 8080, "main")], namespaces.own_network())
                await exchange(8080, b"GET /exit?code=7 HTTP/1.1\r\nHost: a\r\n\r\n")
                assert await heard == Ended("u1", "main", 7)
                standins.close()
                stop.set()
                await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_a_pod_that_ends_lets_its_clients_go_by_themselves() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        await standins.play(ROLE, [Port("TCP", 80, "main")], namespace)
        reader, writer = await asyncio.open_connection("127.0.0.1", 80)
        ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(ask)
        assert b"Connection: close" not in await reader.read(65536)
        assert await standins.drain("u1") == 1
        writer.write(ask)
        assert b"Connection: close" in await reader.read()  # to its end: the other side has closed
        writer.close()
        assert b"Connection: close" in await exchange(80, ask)  # who still comes is answered
        assert await standins.drain("unknown") == 0

    playing(scenario)


def lines_of(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def test_each_request_is_a_line_of_the_containers_log() -> None:
    async def scenario(standins: Standins, namespace: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            role = Role(uid="u1", name="web", ip="127.0.0.1", logs=folder, runs={"main": 1})
            await standins.play(role, [Port("TCP", 80, "main")], namespace)
            await exchange(80, b"GET /a?b HTTP/1.0\r\nUser-Agent: curl/8\r\n\r\n")
            assert (await probes.http("http://127.0.0.1:80/")).ok
            await exchange(80, b"GET /%0a HTTP/1.0\r\nX: 1\r\n\r\n")
            lines = lines_of(f"{folder}/u1/main/1.log")
            assert [text.split(" ", 3)[1:3] for text in lines] == [["stdout", "F"]] * 2
            assert re.fullmatch(r'127\.0\.0\.1 "GET /a\?b" 200 \d+ "curl/8"', lines[0].split(" ", 3)[3])
            assert re.fullmatch(r'127\.0\.0\.1 "GET /%0a" 200 \d+ "-"', lines[1].split(" ", 3)[3])

    playing(scenario)
