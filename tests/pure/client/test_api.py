from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from api_server import ApiServer, client_of, status, until

from podwire.client.api import Client
from podwire.client.errors import ApiError, Unreachable
from podwire.client.kubeconfig import Configuration, Token
from podwire.client.leases import Election
from podwire.objects import codec, resources
from podwire.objects.core import Pod, PodSpec
from podwire.objects.meta import ObjectMeta

PODS = "/api/v1/namespaces/default/pods"


async def test_verbs() -> None:
    server = ApiServer()
    async with client_of(server) as client:
        made = await client.create(resources.PODS, Pod(metadata=ObjectMeta(name="a", namespace="default"), spec=PodSpec(node_name="n")))
        assert made.spec.node_name == "n"
        assert server.bodies[-1]["kind"] == "Pod"
        assert server.bodies[-1]["apiVersion"] == "v1"
        assert (await client.get(resources.PODS, "a", "default")).key == "default/a"
        assert (await client.get_tree(resources.PODS, "a", "default"))["metadata"]["name"] == "a"
        patched = await client.patch(resources.PODS, "a", "default", {"spec": {"nodeName": "m"}})
        assert patched.spec.node_name == "m"
        tree = await client.get_tree(resources.PODS, "a", "default")
        assert (await client.update(resources.PODS, tree)).spec.node_name == "m"
        assert [pod.name for pod in await client.list(resources.PODS)] == ["a"]
        await client.delete(resources.PODS, "a", "default", uid="u", grace=0, propagation="Foreground")
        options = server.bodies[-1]
        assert (options["gracePeriodSeconds"], options["propagationPolicy"], options["preconditions"]) == (0, "Foreground", {"uid": "u"})


async def test_refusals_are_typed() -> None:
    server = ApiServer()
    async with client_of(server) as client:
        with pytest.raises(ApiError, match="not found") as error:
            await client.get(resources.PODS, "a", "default")
        assert error.value.not_found
        server.put(f"{PODS}/a")
        with pytest.raises(ApiError) as error:
            await client.create(resources.PODS, {"metadata": {"name": "a"}}, "default")
        assert error.value.already_exists
        assert not error.value.conflict
        server.refuse = lambda _request: web.Response(status=502, text="<html>bad gateway</html>")
        with pytest.raises(ApiError, match="bad gateway") as error:
            await client.list(resources.PODS)
        assert (error.value.status, error.value.reason) == (502, "Unknown")


async def test_too_many_requests_are_waited_out() -> None:
    server = ApiServer()
    server.put(f"{PODS}/a")

    def refuse(_request: web.Request) -> web.Response | None:
        answer = status(429, "TooManyRequests", "slow down")
        answer.headers["Retry-After"] = "0"
        return answer if len(server.requests) < 3 else None

    server.refuse = refuse
    async with client_of(server) as client:
        assert (await client.get(resources.PODS, "a", "default")).name == "a"


async def test_nobody_answers() -> None:
    async with Client(Configuration("http://127.0.0.1:1")) as client:
        with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:1: "):
            await client.list(resources.PODS)


async def test_the_token_goes_with_each_request_and_connections_are_used_again() -> None:
    server = ApiServer()
    seen: list[tuple[str, int]] = []

    def look(request: web.Request) -> None:
        seen.append((request.headers["Authorization"], request.transport.get_extra_info("peername")[1]))

    server.refuse = look  # type: ignore[assignment]
    async with client_of(server) as plain:
        async with Client(Configuration(plain.server, token=Token("secret"))) as client:
            for _ in range(5):
                await client.list(resources.PODS)
        assert {header for header, _ in seen} == {"Bearer secret"}
        assert len({port for _, port in seen}) == 1


def test_nulls_count_as_absent() -> None:
    body = b'{"metadata":{"name":"a","labels":null,"finalizers":null},"spec":{"nodeName":null,"containers":null},"status":null}'
    assert codec.decode(Pod, body) == Pod(metadata=ObjectMeta(name="a"))
    with pytest.raises(codec.Undecodable, match=r"\$\.spec\.nodeName"):
        codec.decode(Pod, b'{"metadata":{"labels":null},"spec":{"nodeName":1}}')
    with pytest.raises(codec.Undecodable):
        codec.decode(Pod, b"{")
    page = codec.decode_list(Pod, b'{"metadata":{"resourceVersion":"7"},"items":null}')
    assert (page.items, page.resource_version) == ([], "7")


async def test_an_election_has_one_leader_and_another_takes_over() -> None:
    server = ApiServer()
    now = 0.0
    async with client_of(server) as client:
        led: list[str] = []

        def election(identity: str) -> Election:
            return Election(client, "kube-system", "x", identity, retry_s=0.01, random=lambda: 0.0, clock=lambda: now)

        async def lead(identity: str) -> None:
            led.append(identity)
            await asyncio.Event().wait()

        first = asyncio.create_task(election("a").run(lambda: lead("a")))
        await until(lambda: led)
        second = asyncio.create_task(election("b").run(lambda: lead("b")))
        asked = len(server.requests)
        await until(lambda: len(server.requests) >= asked + 10)
        assert led == ["a"]
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)

        def led_by_both_in_time() -> bool:
            nonlocal now
            now += 1.0
            return led == ["a", "b"]

        await until(led_by_both_in_time)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        lease = await client.get(resources.LEASES, "x", "kube-system")
        assert (lease.spec.holder_identity, lease.spec.lease_transitions) == ("b", 1)
