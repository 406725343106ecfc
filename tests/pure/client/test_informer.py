from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import api_server
import pytest
from api_server import ApiServer, client_of, running, until

from podwire.client.informer import Informer
from podwire.objects import resources
from podwire.objects.core import Pod


def pod(name: str, namespace: str = "default") -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


class Follower:
    """An informer that runs, and what it told."""

    def __init__(self, informer: Informer[Pod]) -> None:
        self.informer = informer
        self.told: list[tuple[str, str]] = []
        informer.subscribe(self._hear)

    def _hear(self, old: Pod | None, new: Pod | None) -> None:
        verb = "add" if old is None else "remove" if new is None else "change"
        value = new or old
        assert value is not None
        self.told.append((verb, value.key))

    def names(self) -> list[str]:
        return sorted(value.name for value in self.informer.table.snapshot())


@asynccontextmanager
async def following(server: ApiServer, **where: str) -> AsyncIterator[Follower]:
    async with client_of(server) as client:
        informer = Informer(client, resources.PODS, random=lambda: 0.0, indexes={"node": lambda value: [value.spec.node_name]}, **where)
        follower = Follower(informer)
        task = asyncio.create_task(informer.run())
        try:
            yield follower
        finally:
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(results[0], asyncio.CancelledError), results


async def test_the_first_list_is_there_when_synced_is_set() -> None:
    server = ApiServer()
    for number in range(1201):
        server.put(pod(f"p{number}"), spec={"nodeName": f"n{number % 3}"})
    async with following(server) as follower:
        await asyncio.wait_for(follower.informer.synced.wait(), 10)
        assert len(follower.informer.table) == len(follower.told) == 1201
        assert len(follower.informer.table.by("node", "n1")) == 400
        pages = [request for request in server.requests if "watch" not in request]
        assert len(pages) == 3
        assert all("limit=500" in page for page in pages)


async def test_changes_come_in_order_and_the_object_is_in_the_table_when_told() -> None:
    server = ApiServer()
    server.put(pod("a"))
    async with following(server) as follower:
        await until(lambda: server.watchers)
        server.put(pod("b"), spec={"nodeName": "n"})
        server.put(pod("a"), spec={"nodeName": "n"})
        server.remove(pod("b"))
        await until(lambda: len(follower.told) == 4)
        assert follower.told == [("add", "default/a"), ("add", "default/b"), ("change", "default/a"), ("remove", "default/b")]
        assert follower.names() == ["a"]


async def test_a_subscriber_that_comes_late_is_told_what_is_there() -> None:
    server = ApiServer()
    server.put(pod("a"))
    async with following(server) as follower:
        await asyncio.wait_for(follower.informer.synced.wait(), 10)
        late: list[str] = []
        follower.informer.subscribe(lambda old, new: late.append((new or old).name))
        assert late == ["a"]


async def test_a_closed_stream_is_opened_again_where_it_was_and_nothing_is_told_twice() -> None:
    server = ApiServer()
    server.put(pod("a"))
    async with following(server) as follower:
        await until(lambda: server.watchers)
        server.put(pod("b"))
        await until(lambda: len(follower.told) == 2)
        server.close_watches()
        await until(lambda: sum("watch" in request for request in server.requests) >= 2 and server.watchers)
        server.put(pod("c"))
        await until(lambda: "c" in follower.names())
        assert [key for _, key in follower.told] == ["default/a", "default/b", "default/c"]
        assert sum("watch" not in request for request in server.requests) == 1, "no second list"


async def test_bookmarks_move_the_version_so_that_a_watch_survives_compaction() -> None:
    server = ApiServer()
    server.put(pod("a"))
    async with following(server) as follower:
        await until(lambda: server.watchers)
        server.revision += 100
        server.bookmark()
        server.put(pod("b"))
        await until(lambda: len(follower.told) == 2)
        server.bookmark()
        server.forget_history()
        server.put(pod("c"))
        await until(lambda: len(follower.told) == 3)
        server.close_watches()
        await until(lambda: sum("watch" in request for request in server.requests) >= 2 and server.watchers)
        assert sum("watch" not in request for request in server.requests) == 1


async def test_after_410_the_list_is_taken_anew_and_only_the_difference_is_told() -> None:
    server = ApiServer()
    for name in "abc":
        server.put(pod(name))
    async with following(server) as follower:
        await until(lambda: server.watchers)
        sizes: list[int] = []
        follower.informer.subscribe(lambda _old, _new: sizes.append(len(follower.informer.table)))
        sizes.clear()
        queues, server.watchers = server.watchers, set()  # what follows happens while the stream is broken
        server.remove(pod("a"))
        server.put(pod("b"), spec={"nodeName": "n"})
        server.put(pod("d"))
        server.forget_history()
        del follower.told[:]
        server.on_page = lambda: sizes.append(len(follower.informer.table))
        for queue in queues:
            queue.put_nowait(None)
        await until(lambda: len(follower.told) == 3)
        assert sorted(follower.told) == [("add", "default/d"), ("change", "default/b"), ("remove", "default/a")]
        assert sizes == [3, 3, 3, 3], "the table had all rows of one of the two lists, at any time"
        assert follower.names() == ["b", "c", "d"]


async def test_a_list_whose_token_expires_begins_again_in_one_page() -> None:
    server = ApiServer()
    for number in range(700):
        server.put(pod(f"p{number}"))
    server.on_page = lambda: setattr(server, "oldest", server.revision) if len(server.requests) == 1 else None
    async with following(server) as follower:
        await asyncio.wait_for(follower.informer.synced.wait(), 10)
        assert len(follower.informer.table) == 700
        assert "limit" not in server.requests[2]


async def test_an_object_that_does_not_decode_is_logged_once_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    server = ApiServer()
    server.put(pod("a"))
    server.put(pod("bad"), spec={"nodeName": 7})
    server.put(pod("null"), spec={"nodeName": None, "containers": None}, metadata={"labels": None})
    with caplog.at_level(logging.ERROR):
        async with following(server) as follower:
            await until(lambda: server.watchers)
            assert follower.names() == ["a", "null"]
            server.put(pod("bad"), spec={"nodeName": 7})
            server.put(pod("a"), spec={"nodeName": 8})
            server.put(pod("z"))
            await until(lambda: "z" in follower.names())
            assert follower.names() == ["a", "null", "z"], "the last version that decoded stays"
            server.forget_history()
            server.close_watches()
            await until(lambda: sum("watch" not in request for request in server.requests) == 2 or len(server.watchers) == 1)
            server.put(pod("a"), spec={"nodeName": "n"})
            server.remove(pod("bad"))
            await until(lambda: follower.informer.table.by("node", "n"))
    passed = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert len(passed) == 2
    assert any("default/bad" in text and "$.spec.nodeName" in text for text in passed)


async def test_a_server_that_is_away_or_refuses_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    server = ApiServer()
    server.put(pod("a"))
    server.refuse = lambda _request: api_server.status(503, "ServiceUnavailable", "not yet") if len(server.requests) < 4 else None
    with caplog.at_level(logging.INFO):
        async with following(server) as follower:
            await asyncio.wait_for(follower.informer.synced.wait(), 10)
            assert follower.names() == ["a"]
    assert sum("not yet" in record.getMessage() for record in caplog.records) == 1


async def test_a_server_that_restarts_is_followed_again() -> None:
    server = ApiServer()
    server.put(pod("a"))
    async with running(server) as port:
        from podwire.client.api import Client
        from podwire.client.kubeconfig import Configuration

        client = Client(Configuration(f"http://127.0.0.1:{port}"))
        informer = Informer(client, resources.PODS, random=lambda: 0.0)
        task = asyncio.create_task(informer.run())
        await asyncio.wait_for(informer.synced.wait(), 10)
    server.put(pod("b"))
    async with running(server, port):
        await until(lambda: len(informer.table) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()


async def test_a_subscriber_that_raises_ends_the_informer() -> None:
    server = ApiServer()
    server.put(pod("a"))

    def fail(_old: Pod | None, _new: Pod | None) -> None:
        raise OSError("the kernel refused")

    async with client_of(server) as client:
        informer = Informer(client, resources.PODS)
        informer.subscribe(fail)
        with pytest.raises(OSError, match="the kernel refused"):
            await asyncio.wait_for(informer.run(), 10)


async def test_many_events_in_one_chunk_leave_room_for_others() -> None:
    server = ApiServer()
    async with following(server) as follower:
        await until(lambda: server.watchers)
        lines = [
            api_server.event("ADDED", {"metadata": {"name": f"p{number}", "namespace": "default", "resourceVersion": str(number + 100)}})
            for number in range(20000)
        ]
        server.send_raw(b"".join(lines))
        turns = 0

        def done() -> bool:
            nonlocal turns
            turns += 1
            return len(follower.told) == 20000

        await until(done)
        assert turns > 3
