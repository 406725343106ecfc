"""The agent ``services`` between a real API server and a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import running_apiserver
from podwire import nft
from podwire.client.api import Client
from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.objects.resources import ENDPOINT_SLICES, NAMESPACES, NODES, SERVICES
from podwire.services import agent
from podwire.services.layout import TABLE
from podwire.services.routes import LOCAL, PROTOCOL
from podwire.wire.rtnetlink import Link, change

CONFIG = AgentConfig(
    pod_ranges=("10.4.0.0/14",), service_ranges=("10.8.0.0/20",), node_ranges=("10.128.0.0/20",), external_ranges=("203.0.113.0/24",)
)
LIMIT_S = 10.0


def service(name: str, ip: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"clusterIP": ip, "ports": ports, **spec}}


def slice_of(name: str, *addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "nodeName": "node-1"} for address in addresses],
    }


class Said(logging.Handler):
    """Keeps what agents of this process say from here on that is a warning or worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.words: list[str] = []
        logging.getLogger("podwire").addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.words.append(record.getMessage())


class World:
    def __init__(self, client: Client, kernel: Nftables, network: Network, kubeconfig: str) -> None:
        self.client, self.kernel, self.network, self.kubeconfig = client, kernel, network, kubeconfig

    def comments(self, name: str) -> list[str]:
        found = self.kernel.dump([("ip", TABLE)]).tables
        return sorted(element.comment for element in found[0].set(name).elements.values()) if found else []

    def vips(self) -> list[str]:
        return sorted(str(route.destination) for route in self.network.routes(LOCAL) if route.protocol == PROTOCOL)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():  # noqa: ASYNC110  (the kernel tells nobody)
                await asyncio.sleep(0.002)

    @contextlib.asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        ready = asyncio.Event()
        context = Context(self.client, CONFIG, node="node-1", parts=["services"], on_ready=ready.set)
        task = asyncio.create_task(agent.run(context))
        try:
            async with asyncio.timeout(LIMIT_S):
                await ready.wait()
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await context.close()


def in_loop(folder: Path, body: Callable[[World], Any]) -> None:
    server = None
    with Network() as network, Nftables() as kernel:
        network.apply([change(Link("lo", up=True))])
        server = running_apiserver.start(folder)

        async def main() -> None:
            async with Client.from_kubeconfig(server.kubeconfig()) as client:
                await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
                await client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}})
                await body(World(client, kernel, network, server.kubeconfig()))

        try:
            asyncio.run(main())
        finally:
            server.stop()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s")


def test_the_tables_follow_the_api(folder: Path) -> None:
    async def body(world: World) -> None:
        client = world.client
        await client.create(SERVICES, service("users", "10.8.0.20"))
        await client.create(ENDPOINT_SLICES, slice_of("users", "10.4.0.2", "10.4.0.3"))
        async with world.agent():
            assert "shop/users:http/TCP" in world.comments("frontends")
            assert len([c for c in world.comments("backends") if c.startswith("shop/users")]) == 2
            assert len(world.kernel.dump([("ip", "podwire-masquerade")]).tables) == 1
            await client.patch(ENDPOINT_SLICES, "users-x", "shop", {"endpoints": slice_of("users", "10.4.0.3")["endpoints"]})
            await world.until(lambda: len([c for c in world.comments("backends") if c.startswith("shop/users")]) == 1)
            await client.patch(ENDPOINT_SLICES, "users-x", "shop", {"endpoints": []})
            await world.until(lambda: "shop/users:http/TCP" in world.comments("no-endpoints"))
            await client.delete(SERVICES, "users", "shop")
            await world.until(lambda: "shop/users" not in world.comments("cluster-ips"))

    in_loop(folder, body)


def test_load_balancer_addresses_become_routes_and_go_again(folder: Path) -> None:
    async def body(world: World) -> None:
        client = world.client
        await client.create(SERVICES, service("web", "10.8.0.21", type="LoadBalancer"))
        async with world.agent():
            assert world.vips() == []
            status = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}
            await client.patch(SERVICES, "web", "shop", status, subresource="status")
            await world.until(lambda: world.vips() == ["203.0.113.7/32"])
        async with world.agent():
            assert world.vips() == ["203.0.113.7/32"]
            await client.delete(SERVICES, "web", "shop")
            await world.until(lambda: world.vips() == [])

    in_loop(folder, body)


def test_a_restart_changes_nothing_and_what_went_meanwhile_is_removed(folder: Path) -> None:
    async def body(world: World) -> None:
        client = world.client
        for name, ip in (("a", "10.8.0.21"), ("b", "10.8.0.22")):
            await client.create(SERVICES, service(name, ip, sessionAffinity="ClientIP"))
            await client.create(ENDPOINT_SLICES, slice_of(name, "10.4.0.2", "10.4.0.3"))
        async with world.agent():
            before, generation = world.kernel.dump(), world.kernel.generation()
        async with world.agent():
            assert world.kernel.dump() == before
            assert world.kernel.generation() == generation
        await client.delete(SERVICES, "a", "shop")
        async with world.agent():
            await world.until(lambda: not [c for c in world.comments("backends") if c.startswith("shop/a")])
            [kept] = [
                e.value
                for e in world.kernel.dump([("ip", TABLE)]).tables[0].set("frontends").elements.values()
                if e.comment.startswith("shop/b")
            ]
            assert kept in [e.value for e in before.table("ip", TABLE).set("frontends").elements.values()]

    in_loop(folder, body)


def test_what_somebody_took_away_comes_back_with_the_next_change(folder: Path) -> None:
    async def body(world: World) -> None:
        client = world.client
        await client.create(SERVICES, service("a", "10.8.0.21"))
        async with world.agent():
            world.kernel.apply([nft.DeleteTable(("ip", TABLE))])
            await client.create(ENDPOINT_SLICES, slice_of("a", "10.4.0.2"))
            await world.until(lambda: "shop/a:http/TCP" in world.comments("frontends"))

    in_loop(folder, body)
