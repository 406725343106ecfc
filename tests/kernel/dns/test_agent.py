"""Cluster DNS against a real API server, asked by real programs over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

import running_apiserver
from oracles import program
from podwire.client.api import Client
from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.dns import agent
from podwire.linux.network import Network
from podwire.objects.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES
from podwire.wire import dns
from podwire.wire.rtnetlink import Link, change

CONFIG = AgentConfig(service_ranges=("10.8.0.0/20",), pod_ranges=("10.4.0.0/14",), cluster_dns=("10.8.0.10",))
LIMIT_S = 10.0


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def slice_of(name: str, *addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
    }


def query(name: str, kind: int = dns.A, *, tcp: bool = False, size: int | None = None) -> dns.Message:
    message = dns.Message(9, dns.RD, questions=(dns.Question(dns.name(name), kind),), edns_size=size).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM) as one:
        one.settimeout(LIMIT_S)
        one.connect(("127.0.0.1", 53))
        if not tcp:
            one.send(message)
            return dns.decode(one.recv(65535))
        one.sendall(struct.pack("!H", len(message)) + message)
        with one.makefile("rb") as stream:
            (length,) = struct.unpack("!H", stream.read(2))
            return dns.decode(stream.read(length))


async def ask(name: str, kind: int = dns.A, **how: Any) -> dns.Message:
    return await asyncio.to_thread(query, name, kind, **how)


def addresses(message: dns.Message) -> list[str]:
    return [socket.inet_ntoa(record.data) for record in message.answers if record.type == dns.A]


async def until(what: Callable[[dns.Message], bool], name: str, kind: int = dns.A) -> dns.Message:
    async with asyncio.timeout(LIMIT_S):
        while True:
            message = await ask(name, kind)
            if what(message):
                return message
            await asyncio.sleep(0.002)


async def page(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1])


@contextlib.asynccontextmanager
async def running(server: running_apiserver.ApiServer) -> AsyncIterator[Client]:
    async with Client.from_kubeconfig(server.kubeconfig()) as client:
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        ready = asyncio.Event()
        context = Context(client, CONFIG, parts=["dns"], on_ready=ready.set)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(agent.run(context))
            try:
                async with asyncio.timeout(LIMIT_S):
                    await ready.wait()
                yield client
            finally:
                task.cancel()
                await asyncio.wait([task])
                await context.close()  # before the client: a connection that is being made would outlive it


def in_loop(folder: Path, body: Callable[[Client], Any]) -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True))])
    server = running_apiserver.start(folder)

    async def main() -> None:
        async with running(server) as client:
            await body(client)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as in a Pod
            runner.run(main())
    finally:
        server.stop()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")


def test_names_follow_the_api(folder: Path) -> None:
    async def body(client: Client) -> None:
        assert (await ask("kubernetes.default.svc.cluster.local")).rcode in (dns.NOERROR, dns.NXDOMAIN)
        await client.create(SERVICES, service("users", clusterIP="10.8.0.20", ports=[{"name": "http", "port": 80}]))
        assert addresses(await until(lambda m: bool(m.answers), "users.shop.svc.cluster.local")) == ["10.8.0.20"]
        assert addresses(await ask("USERS.shop.svc.cluster.local", tcp=True)) == ["10.8.0.20"]
        await client.create(SERVICES, service("db", clusterIP="None", ports=[{"name": "http", "port": 80}]))
        await client.create(ENDPOINT_SLICES, slice_of("db", "10.4.0.2", "10.4.1.2"))
        assert set(addresses(await until(lambda m: bool(m.answers), "db.shop.svc.cluster.local"))) == {"10.4.0.2", "10.4.1.2"}
        await client.delete(SERVICES, "users", "shop")
        assert (await until(lambda m: not m.answers, "users.shop.svc.cluster.local")).rcode == dns.NXDOMAIN
        assert (await ask("example.com")).rcode == dns.REFUSED

    in_loop(folder, body)


def test_an_answer_that_is_cut_over_udp_is_whole_over_tcp(folder: Path) -> None:
    async def body(client: Client) -> None:
        many = [f"10.4.{i}.{j}" for i in range(2) for j in range(2, 102)]
        await client.create(SERVICES, service("db", clusterIP="None", ports=[{"name": "http", "port": 80}]))
        await client.create(ENDPOINT_SLICES, slice_of("db", *many[:100]))
        cut = await until(lambda m: bool(m.answers), "db.shop.svc.cluster.local")
        assert cut.flags & dns.TC
        assert len(addresses(await ask("db.shop.svc.cluster.local", tcp=True))) == 100

    in_loop(folder, body)


def test_health_pages(folder: Path) -> None:
    async def body(_: Client) -> None:
        assert await page(8181, "/ready") == 200
        assert await page(8080, "/health") == 200
        assert await page(8080, "/other") == 404

    in_loop(folder, body)


def test_until_everything_is_listed_the_answer_is_a_failure(folder: Path) -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True))])
    server = running_apiserver.start(folder)

    async def main() -> None:
        server.kill()  # the API cannot be reached, so nothing can be listed
        async with Client.from_kubeconfig(server.kubeconfig()) as client:
            context = Context(client, CONFIG, parts=["dns"])
            task = asyncio.create_task(agent.run(context))
            async with asyncio.timeout(LIMIT_S):
                while True:
                    try:
                        assert await page(8080, "/health") == 200
                        break
                    except OSError:
                        await asyncio.sleep(0.002)
            assert (await ask("users.shop.svc.cluster.local")).rcode == dns.SERVFAIL
            with pytest.raises(ConnectionRefusedError):
                await page(8181, "/ready")
            task.cancel()
            await asyncio.wait([task])
            await context.close()

    asyncio.run(main())


def test_other_programs_understand_the_answers(folder: Path) -> None:
    program_dig = program("dig")

    def dig(*words: str) -> str:
        command = [program_dig, "@127.0.0.1", "+tries=1", "+time=5", "+noall", "+answer", "+authority", "+additional", "+comments", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    async def body(client: Client) -> None:
        await client.create(SERVICES, service("users", clusterIP="10.8.0.20", ports=[{"name": "http", "port": 80}]))
        await client.create(SERVICES, service("db", clusterIP="None", ports=[{"name": "http", "port": 80}]))
        await client.create(ENDPOINT_SLICES, slice_of("db", *(f"10.4.0.{i}" for i in range(2, 100))))
        await until(lambda m: bool(m.answers), "users.shop.svc.cluster.local")
        await until(lambda m: bool(m.answers), "db.shop.svc.cluster.local")

        async def asked(*words: str) -> list[list[str]]:
            text = await asyncio.to_thread(dig, *words)
            assert "malformed" not in text.lower()
            assert "Got bad packet" not in text
            return [line.split() for line in text.splitlines() if line and not line.startswith(";")]

        assert [row[3:] for row in await asked("users.shop.svc.cluster.local")] == [["A", "10.8.0.20"]]
        assert [row[3:] for row in await asked("+noedns", "+tcp", "users.shop.svc.cluster.local")] == [["A", "10.8.0.20"]]
        assert [row[3:5] for row in await asked("users.shop.svc.cluster.local", "AAAA")] == [["SOA", "ns.dns.cluster.local."]]
        assert [row[3:] for row in await asked("-x", "10.8.0.20")] == [["PTR", "users.shop.svc.cluster.local."]]
        srv = await asked("_http._tcp.users.shop.svc.cluster.local", "SRV")
        assert srv[0][3:] == ["SRV", "0", "100", "80", "users.shop.svc.cluster.local."]
        assert srv[1][3:] == ["A", "10.8.0.20"]
        assert [row[3:] for row in await asked("dns-version.cluster.local", "TXT")] == [["TXT", '"1.1.0"']]
        assert len(await asked("db.shop.svc.cluster.local")) == 98  # dig asks again over TCP when it must
        assert len(await asked("+noedns", "db.shop.svc.cluster.local")) == 98
        assert "status: NXDOMAIN" in await asyncio.to_thread(dig, "nobody.shop.svc.cluster.local")
        assert "status: REFUSED" in await asyncio.to_thread(dig, "example.com")
        assert "status: BADVERS" in await asyncio.to_thread(dig, "+edns=1", "+noednsneg", "users.shop.svc.cluster.local")

    in_loop(folder, body)
