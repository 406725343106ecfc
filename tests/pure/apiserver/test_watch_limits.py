"""What a watch does when its client does not keep up, and what time does: bookmarks, Events that expire."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from podwire.apiserver import watch
from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.api import Api, put
from podwire.apiserver.authentication import User
from podwire.apiserver.expiry import Expiry
from podwire.apiserver.extension import kinds
from podwire.apiserver.kind import Kind
from podwire.apiserver.registry import REGISTRY
from podwire.apiserver.requests import Request, query, target
from podwire.store import Store

Tree = dict[str, Any]
KIND = REGISTRY.find("", "v1", "configmaps")
PATH = "/api/v1/namespaces/default/configmaps"


def opened(folder: Path, **options: Any) -> Api:
    return Api(Store.open(folder / "db"), Allocator(Ranges(), random.Random(0)), **options)


def request(words: bytes) -> Request:
    where = target(PATH)
    assert where is not None
    return Request("GET", PATH, where, query(words), {}, User("test"))


async def write(api: Api, name: str) -> None:
    assert KIND is not None
    transaction = api.store.transaction()
    put(transaction, KIND, {"metadata": {"namespace": "default", "name": name}})
    await api.store.commit(transaction)


async def test_one_that_falls_behind_is_cut_off(tmp_path: Path) -> None:
    assert KIND is not None
    api = opened(tmp_path, watch_queue=3)
    stream = watch.watch(api, request(b"watch=1&resourceVersion=1"), KIND)
    aborted: list[bool] = []
    stream.abort = lambda: aborted.append(True)
    assert await anext(stream.pieces) == b""
    for i in range(5):
        await write(api, f"c{i}")
    assert aborted == [True]
    assert [piece async for piece in stream.pieces] == []
    await api.store.close()


async def test_bookmarks_tell_how_far_it_has_come(tmp_path: Path) -> None:
    assert KIND is not None
    api = opened(tmp_path, bookmark_s=0.01)
    stream = watch.watch(api, request(b"watch=1&resourceVersion=1&allowWatchBookmarks=true"), KIND)
    await anext(stream.pieces)
    first = await anext(stream.pieces)
    assert b'"type":"BOOKMARK"' in first
    assert b'"resourceVersion":"1"' in first
    await write(api, "c")
    pieces = [await anext(stream.pieces)]
    while b"ADDED" not in pieces[-1]:
        pieces.append(await anext(stream.pieces))
    assert b'"resourceVersion":"2"' in await anext(stream.pieces)
    assert stream.stop is not None
    stream.stop()
    rest = await asyncio.wait_for(_all(stream.pieces), 5)
    assert all(b"BOOKMARK" in piece for piece in rest)
    await api.store.close()


async def test_while_a_conversion_is_waited_for_no_more_changes_are_kept_than_fit(tmp_path: Path) -> None:
    """The program never answers: the watch is cut off when its queue is full, and can be ended at any time before."""
    asked: list[int] = []
    is_asked = asyncio.Event()

    async def never(trees: list[Tree], _to: Kind) -> list[Tree]:
        asked.append(len(trees))
        is_asked.set()
        await asyncio.Event().wait()
        return trees

    versions = [
        {"name": name, "served": True, "storage": name == "v1", "schema": {"openAPIV3Schema": {"type": "object"}}} for name in ("v1", "v2")
    ]
    names = {"plural": "things", "kind": "Thing"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions}
    new, old = kinds.of_definition({"metadata": {"name": "things.example.com"}, "spec": spec}, never)
    assert (new.version, old.version) == ("v2", "v1")
    api = opened(tmp_path, watch_queue=3)

    async def happen(name: str) -> None:
        transaction = api.store.transaction()
        put(transaction, old, {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"namespace": "default", "name": name}})
        await api.store.commit(transaction)

    path = "/apis/example.com/v2/namespaces/default/things"
    where = target(path)
    assert where is not None
    streams = [watch.watch(api, Request("GET", path, where, query(b"watch=1&resourceVersion=1"), {}, User("test")), new) for _ in range(2)]
    cut: list[bool] = []
    streams[0].abort = lambda: (cut.append(True), streams[0].stop and streams[0].stop())[0]
    followed = [asyncio.create_task(_all(stream.pieces)) for stream in streams]
    await happen("first")
    await is_asked.wait()
    assert asked == [1]  # both wait for one
    assert streams[1].stop is not None
    streams[1].stop()
    assert await asyncio.wait_for(followed[1], 5) == [b""]
    streams[1].release()
    for number in range(4):
        await happen(f"later-{number}")
    assert await asyncio.wait_for(followed[0], 5) == [b""]
    assert cut == [True]
    streams[0].release()
    await api.store.close()


async def _all(pieces: Any) -> list[bytes]:
    return [piece async for piece in pieces]


async def test_events_go_when_nobody_writes_them_any_more(tmp_path: Path) -> None:
    kind = REGISTRY.find("", "v1", "events")
    assert kind is not None
    api = opened(tmp_path)

    async def happen(name: str) -> None:
        transaction = api.store.transaction()
        put(transaction, kind, {"metadata": {"namespace": "default", "name": name}})
        await api.store.commit(transaction)

    time = 0.0
    await happen("before")
    expiry = Expiry(api, kind, 10, lambda: time)
    time = 5.0
    await happen("again")
    time = 9.0
    await happen("again")
    assert await expiry.sweep() == 0
    time = 10.0
    assert await expiry.sweep() == 1
    time = 15.0
    assert await expiry.sweep() == 0
    assert [record.key for record in api.store.range("events/")] == ["events/default/again"]
    time = 19.0
    assert await expiry.sweep() == 1
    await api.store.close()
