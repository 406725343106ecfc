"""DaemonSets, StatefulSets, ReplicationControllers and budgets against a real API server, with nodes that only say that their Pods run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import running_apiserver
from podwire.client.api import Client
from podwire.client.errors import ApiError
from podwire.client.informer import Informer
from podwire.objects.core import Pod
from podwire.objects.resources import (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    NODES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICATION_CONTROLLERS,
    SERVICES,
    STATEFUL_SETS,
)
from running_controllers import cluster, namespace, until


def workload(image: str = "nginx", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    return {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template} | spec}


def image(name: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}}


async def reasons(client: Client, where: str) -> set[str]:
    return {one.reason for one in await client.list(EVENTS, where)}


async def test_a_daemon_set_is_on_every_node_and_follows_it(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, kubelet):
        where = await namespace(client, "daemons")
        await client.create(DAEMON_SETS, workload(), where)

        async def counts() -> tuple[int, ...]:
            found = await client.get(DAEMON_SETS, "web", where)
            state = found.status
            seen = (state.desired_number_scheduled, state.current_number_scheduled, state.updated_number_scheduled, state.number_available)
            return seen if state.observed_generation == found.metadata.generation else ()

        async def is_on(nodes: set[str], image: str) -> bool:
            pods = await client.list(PODS, where)
            right = sorted(pod.spec.node_name for pod in pods) == sorted(nodes)
            return right and {pod.spec.containers[0].image for pod in pods} == {image} and await counts() == (len(nodes),) * 4

        await until(lambda: is_on({"n1", "n2", "n3"}, "nginx"))
        await kubelet.register("n4", "a")
        await until(lambda: is_on({"n1", "n2", "n3", "n4"}, "nginx"))
        await client.patch(DAEMON_SETS, "web", where, image("nginx:2"), kind="strategic")
        await until(lambda: is_on({"n1", "n2", "n3", "n4"}, "nginx:2"))
        history = await client.list(CONTROLLER_REVISIONS, where)
        assert sorted(one.revision for one in history) == [1, 2]
        await client.patch(DAEMON_SETS, "web", where, min(history, key=lambda one: one.revision).data, kind="strategic")
        await until(lambda: is_on({"n1", "n2", "n3", "n4"}, "nginx"))
        assert sorted(one.revision for one in await client.list(CONTROLLER_REVISIONS, where)) == [2, 3]
        await client.delete(NODES, "n4")
        await until(lambda: is_on({"n1", "n2", "n3"}, "nginx"))

        async def is_told() -> bool:
            told = {one.reason for one in await client.list(EVENTS, "default") if one.involved_object.name == "n4"}
            return {"RegisteredNode", "RemovingNode"} <= told

        await until(is_told)
        assert {"SuccessfulCreate", "SuccessfulDelete"} <= await reasons(client, where)


async def test_a_stateful_set_keeps_its_names(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "named")
        order: list[tuple[str, str]] = []

        def note(old: Pod | None, new: Pod | None) -> None:
            if (old is None) != (new is None):
                order.append(("+" if new else "-", (new or old).name))  # type: ignore[union-attr]

        informer = Informer(client, PODS, namespace=where)
        informer.subscribe(note)
        task = asyncio.create_task(informer.run())
        body = workload(replicas=3, serviceName="web")
        await client.create(STATEFUL_SETS, body, where)

        async def is_at(replicas: int) -> bool:
            found = await client.get(STATEFUL_SETS, "web", where)
            state = found.status
            counts = (state.replicas, state.ready_replicas, state.updated_replicas, state.current_replicas)
            same = state.observed_generation == found.metadata.generation and state.current_revision == state.update_revision
            return same and counts == (replicas,) * 4

        await until(lambda: is_at(3))
        assert order == [("+", "web-0"), ("+", "web-1"), ("+", "web-2")]
        first = await client.get(PODS, "web-1", where)
        assert (first.spec.hostname, first.spec.subdomain) == ("web-1", "web")
        assert first.metadata.labels["apps.kubernetes.io/pod-index"] == "1"

        order.clear()
        await client.patch(STATEFUL_SETS, "web", where, {"spec": {"replicas": 1}})
        await until(lambda: is_at(1))
        assert order == [("-", "web-2"), ("-", "web-1")]
        await client.patch(STATEFUL_SETS, "web", where, {"spec": {"replicas": 3}})
        await until(lambda: is_at(3))

        order.clear()
        await client.patch(STATEFUL_SETS, "web", where, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}})
        await client.patch(STATEFUL_SETS, "web", where, image("nginx:2"), kind="strategic")

        async def images(wanted: list[str]) -> bool:
            pods = sorted(await client.list(PODS, where), key=lambda one: one.name)
            return [pod.spec.containers[0].image for pod in pods] == wanted and all(pod.ready for pod in pods)

        await until(lambda: images(["nginx", "nginx:2", "nginx:2"]))
        assert order == [("-", "web-2"), ("+", "web-2"), ("-", "web-1"), ("+", "web-1")]
        await client.delete(PODS, "web-0", where)
        await until(lambda: order[-1] == ("+", "web-0"))
        await until(lambda: images(["nginx", "nginx:2", "nginx:2"]))
        await client.patch(STATEFUL_SETS, "web", where, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
        await until(lambda: images(["nginx:2"] * 3))
        await until(lambda: is_at(3))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        async def told() -> bool:
            return {"SuccessfulCreate", "SuccessfulDelete"} <= await reasons(client, where)

        await until(told)


async def test_a_replication_controller_has_its_pods(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "older")
        body = workload(replicas=3)
        body["spec"]["selector"] = {"app": "web"}
        await client.create(REPLICATION_CONTROLLERS, body, where)

        async def at(replicas: int) -> bool:
            found = await client.get(REPLICATION_CONTROLLERS, "web", where)
            state = found.status
            return (state.replicas, state.ready_replicas, state.observed_generation) == (replicas, replicas, found.metadata.generation)

        await until(lambda: at(3))
        await client.patch(REPLICATION_CONTROLLERS, "web", where, {"spec": {"replicas": 1}})
        await until(lambda: at(1))
        owners = {(one.api_version, one.kind) for pod in await client.list(PODS, where) for one in pod.metadata.owner_references}
        assert owners == {("v1", "ReplicationController")}


async def test_a_budget_lets_one_go_at_a_time(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, kubelet):
        where = await namespace(client, "budgets")
        await client.create(STATEFUL_SETS, workload(replicas=3, serviceName="web", podManagementPolicy="Parallel"), where)
        spec = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}}
        await client.create(POD_DISRUPTION_BUDGETS, {"metadata": {"name": "web"}, "spec": spec}, where)

        async def allows(number: int) -> bool:
            state = (await client.get(POD_DISRUPTION_BUDGETS, "web", where)).status
            return (state.expected_pods, state.disruptions_allowed) == (3, number)

        await until(lambda: allows(1))
        kubelet.silent = {"n1", "n2", "n3"}
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-0", "namespace": where}}
        await client.create_subresource(PODS, "web-0", where, "eviction", eviction)
        with pytest.raises(ApiError) as refused:
            await client.create_subresource(PODS, "web-1", where, "eviction", {**eviction, "metadata": {"name": "web-1"}})
        assert refused.value.status == 429
        assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
        assert "needs 2 healthy pods and has" in str(refused.value.body)
        await until(lambda: allows(0))


async def test_endpoints_that_somebody_writes_are_mirrored(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "mirrored")
        await client.create(SERVICES, {"metadata": {"name": "outside"}, "spec": {"ports": [{"port": 80}]}}, where)
        subset = {"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 8080}]}
        await client.create(ENDPOINTS, {"metadata": {"name": "outside"}, "subsets": [subset]}, where)

        async def mirrored() -> list[str]:
            found = await client.list(ENDPOINT_SLICES, where)
            return [address for one in found for endpoint in one.endpoints for address in endpoint.addresses]

        assert await until(mirrored) == ["192.0.2.7"]
        await client.patch(ENDPOINTS, "outside", where, {"subsets": [subset | {"addresses": [{"ip": "192.0.2.8"}]}]})

        async def followed() -> bool:
            return await mirrored() == ["192.0.2.8"]

        await until(followed)
        await client.delete(ENDPOINTS, "outside", where)

        async def gone() -> bool:
            return not await client.list(ENDPOINT_SLICES, where)

        await until(gone)


async def test_of_pods_that_have_ended_the_oldest_go(server: running_apiserver.ApiServer) -> None:
    async with cluster(server, ended_pods=2, node_grace_s=4.0) as (client, kubelet):
        kubelet.silent.add("n1")  # nobody says that its Pods run
        where = await namespace(client, "ended")
        spec = {"nodeName": "n1", "restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
        for number in range(4):
            await client.create(PODS, {"metadata": {"name": f"p{number}"}, "spec": spec}, where)
            await client.patch(PODS, f"p{number}", where, {"status": {"phase": "Failed" if number else "Succeeded"}}, subresource="status")
        await client.create(PODS, {"metadata": {"name": "runs"}, "spec": spec}, where)

        async def names() -> bool:
            return sorted(pod.name for pod in await client.list(PODS, where)) == ["p2", "p3", "runs"]

        await until(names)
