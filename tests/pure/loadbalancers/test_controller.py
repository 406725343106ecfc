"""The controller against a real API server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import running_apiserver
from podwire.client.api import Client
from podwire.client.errors import ApiError
from podwire.loadbalancers.desired import FINALIZER, load_balancer_name
from podwire.objects.core import Service
from podwire.objects.resources import ADDRESSES, EVENTS, FORWARDING_RULES, NODES, SERVICES, TARGET_POOLS

LIMIT_S = 20.0
NAMED = {"networking.gke.io/load-balancer-ip-addresses": "mine"}


@pytest.fixture(scope="module")
def server() -> Iterator[running_apiserver.ApiServer]:
    with tempfile.TemporaryDirectory(prefix="pw") as folder:
        started = running_apiserver.start(Path(folder))
        try:
            yield started
        finally:
            started.stop()
            started.listener.close()


class Controller:
    """The controller as the lab starts it: a process."""

    def __init__(self, kubeconfig: str, folder: Path) -> None:
        self._command = [sys.executable, "-m", "podwire", "agent", "loadbalancers", "--kubeconfig", kubeconfig]
        self._log = folder / "controller.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(LIMIT_S) == 0, self._log.read_text()


@pytest.fixture(scope="module")
def controller(server: running_apiserver.ApiServer) -> Iterator[Controller]:
    running = Controller(server.kubeconfig(running_apiserver.CONTROLLER), server.folder)
    try:
        yield running
        running.stop()
    except BaseException:
        running.kill()
        raise


@pytest.fixture
async def user(server: running_apiserver.ApiServer, controller: Controller) -> AsyncIterator[Client]:
    """A user's client, beside a running controller."""
    async with Client.from_kubeconfig(server.kubeconfig()) as client:
        yield client


async def eventually(what: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the answer is true; what it was then."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            try:
                if answer := await what():
                    return answer
            except ApiError as error:
                if not error.not_found:
                    raise
            await asyncio.sleep(0.01)


async def set_ready(user: Client, name: str, ready: bool = True) -> None:
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    await user.patch(NODES, name, "", {"status": {"conditions": conditions}}, subresource="status")


def body(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], **spec}}


async def with_address(user: Client, name: str) -> Service:
    async def ingress() -> Service | None:
        found = await user.get(SERVICES, name, "default")
        return found if found.status.load_balancer.ingress else None

    found: Service = await eventually(ingress)
    return found


async def reasons(user: Client, name: str) -> list[str]:
    return [event.reason for event in await user.list(EVENTS, "default") if event.involved_object.name == name]


async def test_a_service_gets_its_load_balancer_and_loses_it(user: Client) -> None:
    for name in ("n1", "n2"):
        await user.create(NODES, {"metadata": {"name": name}})
    await set_ready(user, "n1")
    await user.create(SERVICES, body("web"))
    service = await with_address(user, "web")
    name = load_balancer_name(service)
    address = service.status.load_balancer.ingress[0].ip
    assert address.startswith("203.0.113.")
    assert FINALIZER in service.metadata.finalizers
    assert (await user.get(ADDRESSES, name)).spec.address == address
    rule = await user.get(FORWARDING_RULES, name)
    assert (rule.spec.ip_address, rule.spec.ports, rule.spec.target) == (address, (80,), name)
    assert (await user.get(TARGET_POOLS, name)).spec.instances == ("n1",)

    async def instances(*names: str) -> bool:
        return (await user.get(TARGET_POOLS, name)).spec.instances == names

    await set_ready(user, "n2")
    await eventually(lambda: instances("n1", "n2"))
    await set_ready(user, "n1", ready=False)
    await eventually(lambda: instances("n2"))
    await set_ready(user, "n2", ready=False)
    await eventually(instances)
    patch = {"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 53, "protocol": "UDP", "name": "b"}]}}
    await user.patch(SERVICES, "web", "default", patch)
    assert (await eventually(lambda: user.get(FORWARDING_RULES, f"{name}-udp"))).spec.ports == (53,)
    await user.delete(SERVICES, "web", "default")

    async def gone() -> bool:
        left = [await user.list(resource) for resource in (ADDRESSES, FORWARDING_RULES, TARGET_POOLS)]
        return not any(left) and "web" not in {one.name for one in await user.list(SERVICES)}

    await eventually(gone)

    async def told() -> bool:
        wanted = {"EnsuringLoadBalancer", "EnsuredLoadBalancer", "DeletingLoadBalancer", "DeletedLoadBalancer"}
        return wanted <= set(await reasons(user, "web"))

    await eventually(told)


async def test_a_service_that_is_no_longer_of_the_type_gives_its_address_back(user: Client) -> None:
    await user.create(SERVICES, body("fickle", loadBalancerIP="203.0.113.77"))
    service = await with_address(user, "fickle")
    assert service.status.load_balancer.ingress[0].ip == "203.0.113.77"
    await user.patch(SERVICES, "fickle", "default", {"spec": {"type": "ClusterIP", "loadBalancerIP": None}})

    async def clean() -> bool:
        found = await user.get(SERVICES, "fickle", "default")
        return not found.status.load_balancer.ingress and FINALIZER not in found.metadata.finalizers

    await eventually(clean)
    assert await user.list(ADDRESSES) == []
    await user.patch(SERVICES, "fickle", "default", {"spec": {"type": "LoadBalancer"}})
    await with_address(user, "fickle")
    await user.delete(SERVICES, "fickle", "default")


async def test_a_reserved_address_stays_as_long_as_a_service_has_it(user: Client) -> None:
    await user.create(ADDRESSES, {"metadata": {"name": "mine"}})
    await user.create(SERVICES, {**body("tenant"), "metadata": {"name": "tenant", "namespace": "default", "annotations": NAMED}})
    name = load_balancer_name(await with_address(user, "tenant"))
    with pytest.raises(ApiError, match=f"'addresses/mine' is already being used by 'forwardingRules/{name}'"):
        await user.delete(ADDRESSES, "mine")
    await user.delete(SERVICES, "tenant", "default")

    async def free() -> bool:
        return not await user.list(FORWARDING_RULES)

    await eventually(free)
    await user.delete(ADDRESSES, "mine")
    assert await user.list(ADDRESSES) == []


async def test_an_address_that_cannot_be_had_is_told_and_others_go_on(user: Client) -> None:
    await user.create(SERVICES, body("wrong", loadBalancerIP="192.0.2.1"))
    await user.create(SERVICES, body("right"))
    await with_address(user, "right")

    async def told() -> bool:
        return "SyncLoadBalancerFailed" in await reasons(user, "wrong")

    await eventually(told)
    assert not (await user.get(SERVICES, "wrong", "default")).status.load_balancer.ingress
    await user.patch(SERVICES, "wrong", "default", {"spec": {"loadBalancerIP": "203.0.113.88"}})
    assert (await with_address(user, "wrong")).status.load_balancer.ingress[0].ip == "203.0.113.88"
    for name in ("wrong", "right"):
        await user.delete(SERVICES, name, "default")


async def test_internal_ones_are_told_and_those_of_others_left_alone(user: Client) -> None:
    internal = body("internal")
    internal["metadata"]["annotations"] = {"networking.gke.io/load-balancer-type": "Internal"}
    await user.create(SERVICES, internal)
    await user.create(SERVICES, body("theirs", loadBalancerClass="example.com/other"))

    async def told() -> bool:
        return await reasons(user, "internal") == ["UnsupportedLoadBalancerType"]

    await eventually(told)
    for name in ("internal", "theirs"):
        assert (await user.get(SERVICES, name, "default")).metadata.finalizers == ()
    assert await reasons(user, "theirs") == []


async def test_what_is_left_over_is_taken_away(user: Client, controller: Controller) -> None:
    controller.kill()
    owner = '{"kubernetes.io/service-name":"default/long-gone"}'
    await user.create(TARGET_POOLS, {"metadata": {"name": "aold"}, "spec": {"description": owner}})
    await user.create(TARGET_POOLS, {"metadata": {"name": "mine"}, "spec": {"description": "a person's"}})
    controller.start()

    async def gone() -> bool:
        return [pool.name for pool in await user.list(TARGET_POOLS)] == ["mine"]

    await eventually(gone)


async def test_killed_at_any_moment_it_goes_on_where_it_was(user: Client, controller: Controller) -> None:
    names = [f"killed-{number}" for number in range(8)]
    for name in names:
        await user.create(SERVICES, body(name))
        await asyncio.to_thread(controller.kill)
        controller.start()
    addresses = {(await with_address(user, name)).status.load_balancer.ingress[0].ip for name in names}
    assert len(addresses) == len(await user.list(ADDRESSES)) == len(names)
    for name in names:
        await user.delete(SERVICES, name, "default")

    async def gone() -> bool:
        return not await user.list(ADDRESSES)

    await eventually(gone)
