"""service-propagation: from a write to the API until all of ten nodes have programmed it, 10,000 Services there.

A real API server and ten agents, each a process with a kernel's namespace of its own. A write changes one endpoint in one slice; the time
ends when the kernel of the last node has carried out a transaction. Proof: every kernel holds the addresses that were written.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path

import orjson

from bench.isolated import in_child
from bench.report import Limit, Report, percentile
from bench.service_objects import POD_RANGES, pod_ip

NODES, SERVICES, WRITES = 10, 10_000, 200
RANGE = "10.32.0.0/14"
SPARE = 2_000_000
LIMIT_S, SETTLE_S = 120.0, 0.03
PATH = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


def _agent(number: int, namespace: int, kubeconfig: str) -> None:
    """One node's service proxy, until it is killed."""
    import uvloop

    from podwire.client.api import Client
    from podwire.daemon.config import AgentConfig
    from podwire.daemon.context import Context
    from podwire.services.agent import ServiceProxy

    config = AgentConfig(pod_ranges=POD_RANGES, service_ranges=(RANGE,), node_ranges=("10.128.0.0/20",))

    async def main() -> None:
        import gc

        async with Client.from_kubeconfig(kubeconfig) as client:
            context = Context(client, config, node=f"node-{number}", parts=["services"], on_ready=gc.freeze)
            await ServiceProxy(context, namespace).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _service(number: int) -> dict[str, object]:
    spec = {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"service-{number}", "namespace": "default"}, "spec": spec}


def _slice(number: int, address: str) -> dict[str, object]:
    labels = {"kubernetes.io/service-name": f"service-{number}"}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"service-{number}-x", "namespace": "default", "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "nodeName": f"node-{number % NODES}"}],
    }


async def _fill(kubeconfig: str) -> None:
    from podwire.client.api import Client
    from podwire.objects.resources import ENDPOINT_SLICES
    from podwire.objects.resources import NODES as NODE_RESOURCE
    from podwire.objects.resources import SERVICES as SERVICE_RESOURCE

    async with Client.from_kubeconfig(kubeconfig) as client:
        for number in range(NODES):
            await client.create(NODE_RESOURCE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}"}})
        left = iter(range(SERVICES))

        async def worker() -> None:
            for number in left:
                await client.create(SERVICE_RESOURCE, _service(number), "default")
                await client.create(ENDPOINT_SLICES, _slice(number, pod_ip(number)), "default")

        await asyncio.gather(*(worker() for _ in range(32)))


def _measure() -> list[float]:
    from podwire.linux import namespaces
    from tests.running_apiserver import start

    with tempfile.TemporaryDirectory(prefix="pw-") as folder:
        server = start(Path(folder), serviceRanges=[RANGE])
        agents: list[int] = []
        try:
            asyncio.run(_fill(server.kubeconfig()))
            namespaces.enter_new(user=os.geteuid() != 0, pid=False, net=False)
            places = [namespaces.create_network() for _ in range(NODES)]
            for number, place in enumerate(places):
                child = os.fork()
                if child == 0:
                    _agent(number, place, server.kubeconfig())
                    os._exit(1)
                agents.append(child)
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=LIMIT_S)
            return _write(connection, places)
        finally:
            for child in agents:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            server.stop()


def _write(connection: http.client.HTTPSConnection, places: list[int]) -> list[float]:
    from podwire.linux.nftables import Nftables

    kernels = [Nftables(place) for place in places]
    _until_held(kernels, pod_ip(SERVICES - 1), pod_ip(0))
    taken, written = [], []
    for turn in range(WRITES):
        _until_quiet(kernels)
        number, address = turn * 47 % SERVICES, pod_ip(SPARE + turn)
        before = [kernel.generation() for kernel in kernels]
        body = orjson.dumps({"endpoints": [{"addresses": [address], "nodeName": "node-0"}]})
        began = time.perf_counter()
        connection.request("PATCH", f"{PATH}/service-{number}-x", body, {"Content-Type": "application/merge-patch+json"})
        waiting = list(zip(kernels, before, strict=True))
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise SystemExit(f"the API answered {answer.status}")
        while waiting:
            waiting = [(kernel, was) for kernel, was in waiting if kernel.generation() == was]
            if waiting:
                time.sleep(0.0002)
        taken.append(1000 * (time.perf_counter() - began))
        written.append(address)
    _until_held(kernels, *written)
    return taken


def _until_quiet(kernels: list[object]) -> None:
    """Wait until no kernel has had a transaction for a while: late deletions are no answer to the next write."""
    before: list[int] = []
    while True:
        now = [kernel.generation() for kernel in kernels]  # type: ignore[attr-defined]
        if now == before:
            return
        before = now
        time.sleep(SETTLE_S)


def _until_held(kernels: list[object], *addresses: str) -> None:
    """Wait until every kernel holds the addresses."""
    from podwire.services.layout import TABLE

    wanted = {ip_address(address).packed for address in addresses}
    deadline = time.monotonic() + LIMIT_S
    for kernel in kernels:
        held: set[bytes] = set()
        while not wanted <= held:
            if time.monotonic() > deadline:
                raise SystemExit(f"a node holds {len(wanted & held)} of {len(wanted)} addresses")
            time.sleep(0.1)
            if (found := kernel.dump([("ip", TABLE)]).tables) and any(chain.hook for chain in found[0].chains):  # type: ignore[attr-defined]
                held = {element.value[:4] for element in found[0].set("backends").elements.values()}


def run() -> Report:
    """Run the benchmark."""
    taken = in_child(_measure)
    figures = {"p50_ms": percentile(taken, 0.5), "p99_ms": percentile(taken, 0.99)}
    size = {"nodes": NODES, "services": SERVICES, "writes": WRITES}
    return Report("service-propagation", figures, {"ms": taken}, size, {"p99_ms": Limit(most=25)})
