"""The controllers as a process of their own against a real API server, with nodes that only say that their Pods run."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import running_apiserver
from podwire.client.api import Client
from podwire.client.informer import Informer
from podwire.objects.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from running_controllers import cluster, namespace, until


def web(replicas: int, image: str = "nginx", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    body = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return {"metadata": {"name": "web"}, "spec": body | spec}


async def rolled_out(client: Client, where: str, replicas: int) -> bool:
    found = await client.get(DEPLOYMENTS, "web", where)
    state = found.status
    counts = (state.replicas, state.updated_replicas, state.available_replicas)
    return state.observed_generation == found.metadata.generation and counts == (replicas,) * 3


async def test_a_deployment_becomes_pods_on_all_zones_and_endpoints(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "first")
        await client.create(SERVICES, {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}, where)
        await client.create(DEPLOYMENTS, web(6), where)
        await until(lambda: rolled_out(client, where, 6))
        pods = await client.list(PODS, where)
        assert sorted(pod.spec.node_name for pod in pods) == ["n1", "n1", "n2", "n2", "n3", "n3"]

        async def all_ready() -> bool:
            slices = await client.list(ENDPOINT_SLICES, where, labels="kubernetes.io/service-name=web")
            return {one.addresses[0] for part in slices for one in part.endpoints if one.ready} == {pod.status.pod_ip for pod in pods}

        await until(all_ready)

        async def in_the_older_form() -> bool:
            return [len(one.addresses) for one in (await client.get(ENDPOINTS, "web", where)).subsets] == [6]

        await until(in_the_older_form)

        async def told() -> bool:
            return {"ScalingReplicaSet", "SuccessfulCreate", "Scheduled"} <= {one.reason for one in await client.list(EVENTS, where)}

        await until(told)
        await client.patch(DEPLOYMENTS, "web", where, {"spec": {"replicas": 0}})

        async def says_nothing_of_none() -> bool:
            found = (await client.get_tree(DEPLOYMENTS, "web", where))["status"]
            [one] = await client.list(REPLICA_SETS, where)
            its = (await client.get_tree(REPLICA_SETS, one.name, where))["status"]
            return (found.keys(), its.keys()) == ({"observedGeneration", "conditions"}, {"replicas", "observedGeneration"})

        await until(says_nothing_of_none)


async def test_a_rolling_update_and_the_way_back(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "rolling")
        await client.create(DEPLOYMENTS, web(4), where)
        await until(lambda: rolled_out(client, where, 4))
        first = await client.get_tree(DEPLOYMENTS, "web", where)
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}}
        await client.patch(DEPLOYMENTS, "web", where, patch, kind="strategic")
        await until(lambda: rolled_out(client, where, 4))
        await client.patch(DEPLOYMENTS, "web", where, {"spec": {"template": first["spec"]["template"]}}, kind="strategic")
        await until(lambda: rolled_out(client, where, 4))
        sets = await client.list(REPLICA_SETS, where)
        assert sorted(one.spec.replicas for one in sets) == [0, 4]
        revision = await until(lambda: client.get(DEPLOYMENTS, "web", where))
        assert revision.metadata.annotations["deployment.kubernetes.io/revision"] == "3"
        images = {container.image for pod in await client.list(PODS, where) for container in pod.spec.containers}
        assert images == {"nginx"}


async def test_many_pods_are_exactly_many(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "many")
        await client.create(DEPLOYMENTS, web(0), where)
        created: set[str] = set()
        informer = Informer(client, PODS, namespace=where)
        informer.subscribe(lambda old, new: created.add(new.name) if new is not None else None)
        task = asyncio.create_task(informer.run())
        for size in (120, 30, 90):
            await client.patch(DEPLOYMENTS, "web", where, {"spec": {"replicas": size}})
            await until(lambda size=size: rolled_out(client, where, size))
        await until(lambda: len(informer.table) == 90)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(created) == 120 + 60, "none was made twice"


async def test_what_is_owned_goes_with_its_owner(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "owned")
        for propagation in ("Background", "Foreground"):
            await client.create(DEPLOYMENTS, web(2), where)
            await until(lambda: rolled_out(client, where, 2))
            await client.delete(DEPLOYMENTS, "web", where, propagation=propagation)

            async def empty() -> bool:
                lists = [await client.list(one, where) for one in (DEPLOYMENTS, REPLICA_SETS, PODS)]
                return not any(lists)

            await until(empty)
        await client.create(DEPLOYMENTS, web(2), where)
        await until(lambda: rolled_out(client, where, 2))
        before = {pod.name for pod in await client.list(PODS, where)}
        await client.delete(DEPLOYMENTS, "web", where, propagation="Orphan")

        async def gone() -> bool:
            return not await client.list(DEPLOYMENTS, where)

        await until(gone)
        await client.create(DEPLOYMENTS, web(2), where)
        await until(lambda: rolled_out(client, where, 2))
        assert {pod.name for pod in await client.list(PODS, where)} == before, "adopted again"


async def test_a_namespace_is_emptied_and_goes(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "ending")
        await client.create(DEPLOYMENTS, web(3), where)
        await until(lambda: rolled_out(client, where, 3))
        await until(lambda: client.get(SERVICE_ACCOUNTS, "default", where))
        await client.delete(NAMESPACES, where)

        async def gone() -> bool:
            return where not in {one.name for one in await client.list(NAMESPACES)}

        await until(gone)
        assert await client.list(PODS, where) == []


async def test_who_asks_for_a_lasting_token_is_given_one_that_the_api_knows(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "accounts")
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "robot"}}, where)
        annotations = {"kubernetes.io/service-account.name": "robot"}
        asking = {"metadata": {"name": "robot-token", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
        await client.create(SECRETS, asking, where)

        async def token() -> str:
            return (await client.get(SECRETS, "robot-token", where)).data.get("token", "")

        text = base64.b64decode(await until(token)).decode()
        reviewed = await client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": text}})
        assert json.loads(reviewed)["status"]["user"]["username"] == f"system:serviceaccount:{where}:robot"
        await client.delete(SERVICE_ACCOUNTS, "robot", where)

        async def gone() -> bool:
            return "robot-token" not in {one.name for one in await client.list(SECRETS, where)}

        await until(gone)


async def test_each_namespace_has_the_certificates_of_the_api(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where, name = await namespace(client, "certified"), "kube-root-ca.crt"
        authority = client.configuration.authority.decode()
        made = await until(lambda: client.get(CONFIG_MAPS, name, where))
        assert made.data == {"ca.crt": authority}
        await client.delete(CONFIG_MAPS, name, where)
        again = await until(lambda: client.get(CONFIG_MAPS, name, where))
        assert again.metadata.uid != made.metadata.uid
        await client.patch(CONFIG_MAPS, name, where, {"data": {"ca.crt": "forged", "more": "x"}})

        async def repaired() -> bool:
            return (await client.get(CONFIG_MAPS, name, where)).data == {"ca.crt": authority}

        await until(repaired)


async def test_a_pod_that_fits_nowhere_says_why_and_is_placed_when_it_can_be(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "nowhere")
        spec = {"containers": [{"name": "c", "image": "x"}], "nodeSelector": {"disk": "ssd"}}
        await client.create(PODS, {"metadata": {"name": "picky"}, "spec": spec}, where)

        async def reason() -> str:
            found = await client.get(PODS, "picky", where)
            return next((one.message for one in found.status.conditions if one.type == "PodScheduled" and one.status == "False"), "")

        assert await until(reason) == (
            "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. "
            "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        )
        await client.patch(NODES, "n2", "", {"metadata": {"labels": {"disk": "ssd"}}})

        async def placed() -> bool:
            return (await client.get(PODS, "picky", where)).ready

        await until(placed)
        assert (await client.get(PODS, "picky", where)).spec.node_name == "n2"


async def test_pods_of_a_node_that_is_silent_move(server: running_apiserver.ApiServer) -> None:
    async with cluster(server, node_grace_s=3.0) as (client, kubelet):
        kubelet.silent = {"n2"}
        beating = asyncio.create_task(kubelet.beat(("n1", "n2", "n3")))
        where = await namespace(client, "silent")
        body = web(3)
        soon = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
        body["spec"]["template"]["spec"]["tolerations"] = [soon]
        await client.create(DEPLOYMENTS, body, where)

        async def lost() -> bool:
            return not (await client.get(NODES, "n2")).ready

        await until(lost)

        async def elsewhere() -> bool:
            pods = [pod for pod in await client.list(PODS, where) if not pod.terminating]
            return len(pods) == 3 and all(pod.ready and pod.spec.node_name != "n2" for pod in pods)

        await until(elsewhere)
        taints = {taint.key for taint in (await client.get(NODES, "n2")).spec.taints}
        assert "node.kubernetes.io/unreachable" in taints
        kubelet.silent = set()
        await kubelet.register("n2", "b")

        async def clean() -> bool:
            return not (await client.get(NODES, "n2")).spec.taints

        await until(clean)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def test_controllers_outlive_their_api_server(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "outlive")
        await client.create(DEPLOYMENTS, web(2), where)
        await until(lambda: rolled_out(client, where, 2))
        server.kill()
        await asyncio.to_thread(server.run)
        await client.patch(DEPLOYMENTS, "web", where, {"spec": {"replicas": 5}})
        await until(lambda: rolled_out(client, where, 5))
