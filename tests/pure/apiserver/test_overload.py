"""What a server that has too much to do says, and whom it goes on serving. Requests are counted here, not timed."""

from __future__ import annotations

import asyncio
import json
import math
import random
import ssl
from collections import Counter, deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.apiserver import app
from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.api import Api
from podwire.apiserver.authentication import Certified, User
from podwire.apiserver.fairness import LONG_BODIES, PRESENT, Turns, Visit, is_exempt
from podwire.apiserver.requests import Target, target
from podwire.apiserver.status import Failure
from podwire.store import Store
from running_apiserver import ADMIN, CONTROLLER, NODE, ApiServer

LIMIT_S = 60


async def visit(turns: Turns, user: str, done: asyncio.Event, served: list[str]) -> None:
    arrived = turns.arrive(user)
    try:
        await turns.seat(arrived)
        served.append(user)
        await done.wait()
    finally:
        turns.leave(arrived)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_asks_for_much_waits_for_himself_alone() -> None:
    turns, served = Turns(seats=2, present=100), list[str]()
    leaving = [asyncio.Event() for _ in range(60)]
    tasks = [asyncio.create_task(visit(turns, "flood", event, served)) for event in leaving[:50]]
    await settle()
    assert served == ["flood"] * 2
    for number, user in enumerate(("ann", "bob", "ann", "cid")):
        tasks.append(asyncio.create_task(visit(turns, user, leaving[50 + number], served)))
    await settle()
    for event in leaving[:50]:
        event.set()
        await settle()
    for event in leaving[50:]:
        event.set()
    await asyncio.gather(*tasks)
    # Each of the others is served once before the flood is served twice.
    assert served[2:10] == ["flood", "ann", "bob", "cid", "flood", "ann", "flood", "flood"]
    assert Counter(served) == {"flood": 50, "ann": 2, "bob": 1, "cid": 1}
    assert turns.present == 0


@given(st.lists(st.tuples(st.sampled_from(["come", "go", "give up"]), st.integers(0, 5)), max_size=60), st.integers(1, 3))
def test_turns_against_a_slow_reference(steps: list[tuple[str, int]], seats: int) -> None:
    """Seats are never more than there are, never free while somebody waits, and go round; who gives up takes none with him."""

    async def run() -> None:
        turns = Turns(seats, present=1000)
        seated: list[tuple[str, asyncio.Event, asyncio.Task[None]]] = []
        queues: dict[str, deque[tuple[str, asyncio.Event, asyncio.Task[None]]]] = {}
        order: deque[str] = deque()
        served: list[str] = []
        expected: list[str] = []

        def next_one() -> None:
            while order and len(seated) < seats:
                user = order.popleft()
                one = queues[user].popleft()
                if queues[user]:
                    order.append(user)
                seated.append(one)
                expected.append(user)

        for act, number in steps:
            if act == "come":
                user, event = "abc"[number % 3], asyncio.Event()
                task = asyncio.create_task(visit(turns, user, event, served))
                queues.setdefault(user, deque())
                if not queues[user]:
                    order.append(user)
                queues[user].append((user, event, task))
            elif seated:
                _, event, task = seated.pop(number % len(seated))
                if act == "go":
                    event.set()
                else:
                    task.cancel()
            await settle()
            next_one()
            await settle()
            assert served == expected
        for one in [*seated, *(one for queue in queues.values() for one in queue)]:
            one[2].cancel()
        await settle()
        assert turns.present == 0
        # Whatever happened, all seats are there again.
        again = [turns.arrive("z") for _ in range(seats + 1)]
        for arrived in again[:-1]:
            await turns.seat(arrived)
        last = asyncio.create_task(turns.seat(again[-1]))
        await settle()
        assert not last.done()
        turns.leave(again[0])
        await last

    asyncio.run(run())


def test_a_user_with_too_many_requests_is_asked_to_come_again() -> None:
    turns = Turns(present=2)
    visits: list[Visit] = [turns.arrive("ann"), turns.arrive("ann")]
    with pytest.raises(Failure) as refused:
        turns.arrive("ann")
    assert (refused.value.code, refused.value.reason) == (429, "TooManyRequests")
    turns.arrive("bob")
    turns.leave(visits[0])
    turns.arrive("ann")


@pytest.mark.parametrize(
    ("path", "exempt"),
    [
        ("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node-1", True),
        ("/api/v1/nodes/node-1/status", True),
        ("/api/v1/namespaces/default/pods/web/status", True),
        ("/api/v1/nodes/node-1", False),
        ("/api/v1/pods", False),
    ],
)
def test_signs_of_life_of_nodes_take_no_turn(path: str, exempt: bool) -> None:
    asked = target(path)
    assert isinstance(asked, Target)
    assert is_exempt(User("system:node:node-1", ("system:nodes",)), asked) == exempt
    assert not is_exempt(User("ann", ("system:masters",)), asked)


async def test_of_long_bodies_a_user_has_few_at_once() -> None:
    turns = Turns()
    visits = [turns.arrive("ann") for _ in range(LONG_BODIES + 1)]
    for one in visits[:-1]:
        await turns.take_long_body(one)
    await turns.take_long_body(turns.arrive("bob"))
    waiting = asyncio.create_task(turns.take_long_body(visits[-1]))
    await settle()
    assert not waiting.done()
    turns.leave(visits[0])
    await asyncio.wait_for(waiting, LIMIT_S)


async def test_who_does_not_send_his_body_is_not_waited_for(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "BODY_S", 0.01)
    api = Api(Store.open(tmp_path / "db"), Allocator(Ranges(), random.Random(0)))
    application = app.Application(api, "v1.37.0")
    sent: list[dict[str, Any]] = []
    trickled: list[bytes] = []

    async def receive() -> dict[str, Any]:
        trickled.append(b" ")
        await asyncio.sleep(0.001)
        return {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/namespaces/default/configmaps",
        "query_string": b"",
        "headers": [],
        "extensions": {app.EXTENSION: {"certified": Certified(User("ann", ("system:masters",)), 0, math.inf)}},
    }
    await application(scope, receive, send)
    assert sent[0]["status"] == 504
    assert dict(sent[0]["headers"])[b"connection"] == b"close"
    assert json.loads(sent[1]["body"])["reason"] == "Timeout"
    assert trickled
    await api.store.close()


# With a flood from outside ----------------------------------------------------------------------------------------------------

OVER = 20
PATH = "/api/v1/namespaces/default/configmaps"


def head(method: str, path: str, body: bytes) -> bytes:
    return f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()


async def opened(server: ApiServer, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes, Any]:
    """The status, the head and the tree of an answer."""
    text = await reader.readuntil(b"\r\n\r\n")
    length = int(text.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(text.split(b" ")[1]), text.lower(), json.loads(await reader.readexactly(length))


async def asked(server: ApiServer, context: ssl.SSLContext, method: str, path: str, tree: Any = None) -> tuple[int, bytes, Any]:
    reader, writer = await opened(server, context)
    body = json.dumps(tree).encode() if tree is not None else b""
    writer.write(head(method, path, body) + body)
    got = await answer(reader)
    writer.transport.abort()
    return got


async def test_a_flood_leaves_the_nodes_and_other_users_alone(server: ApiServer) -> None:
    admin, node, controller = server.context(ADMIN), server.context(NODE), server.context(CONTROLLER)
    async with asyncio.timeout(LIMIT_S):
        assert (await asked(server, admin, "POST", "/api/v1/nodes", {"metadata": {"name": "node-1"}}))[0] == 201
        flood = [await opened(server, admin) for _ in range(PRESENT + OVER)]
        bodies = [json.dumps({"metadata": {"name": f"flood-{number}"}}).encode() for number in range(len(flood))]
        for (_, writer), body in zip(flood, bodies, strict=True):
            writer.write(head("POST", PATH, body) + body[:1])  # the rest is still on its way
        # Each is present or refused; the refused ones are as many as are too many.
        first = [asyncio.create_task(answer(reader)) for reader, _ in flood]
        refused: set[asyncio.Task[Any]] = set()
        while len(refused) < OVER:
            refused, _ = await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)
        for task in refused:
            code, text, told = task.result()
            assert code == 429
            assert b"retry-after: 1\r\n" in text
            assert (told["kind"], told["reason"], told["details"]["retryAfterSeconds"]) == ("Status", "TooManyRequests", 1)
        assert (await asked(server, admin, "GET", f"{PATH}/x"))[0] == 429
        assert await health(server, admin) == 200
        lease = {"metadata": {"name": "node-1"}, "spec": {"holderIdentity": "node-1"}}
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        assert (await asked(server, node, "POST", leases, lease))[0] == 201
        for number in range(10):
            assert (await asked(server, node, "PUT", f"{leases}/node-1", lease | {"spec": {"leaseTransitions": number}}))[0] == 200
        assert (await asked(server, controller, "GET", PATH))[0] == 200
        assert (await asked(server, controller, "POST", PATH, {"metadata": {"name": "other"}}))[0] == 201
        for (_, writer), body in zip(flood, bodies, strict=True):
            writer.write(body[1:])
        done = await asyncio.gather(*first)
        assert Counter(code for code, _, _ in done) == {201: PRESENT, 429: OVER}
        for _, writer in flood:
            writer.transport.abort()


async def health(server: ApiServer, context: ssl.SSLContext) -> int:
    reader, writer = await opened(server, context)
    writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n")
    text = await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    return int(text.split(b" ")[1])
