"""The store against a plain dict, its past, its watches, its file."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.store import Change, Compacted, LayoutMismatch, Store, StoreInUse, Unwritable, Watch
from podwire.store.disk import Batch, Disk
from podwire.store.store import ENOUGH

KEYS = ["pods/a/x", "pods/a/y", "pods/b/x", "pods/ab/x", "nodes/n", "nodes/m"]
PREFIXES = ["pods/", "pods/a/", "pods/b/", "nodes/"]


async def put(store: Store, **values: str) -> int:
    transaction = store.transaction()
    for key, value in values.items():
        transaction.put(key, value.encode())
    return await store.commit(transaction)


async def write(store: Store, key: str, value: bytes | None) -> int:
    transaction = store.transaction()
    if value is None:
        transaction.delete(key, b"last")
    else:
        transaction.put(key, value)
    return await store.commit(transaction)


def shown(store: Store, prefix: str, at: int = 0) -> dict[str, bytes]:
    return {record.key: record.value for record in store.range(prefix, at=at)}


def told(changes: list[Change]) -> list[tuple[int, str, bytes | None]]:
    return [(change.revision, change.key, change.record.value if change.record else None) for change in changes]


operations = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), st.binary(max_size=4))), min_size=1, max_size=4),
        ),
        st.tuples(
            st.just("burst"),
            st.lists(st.tuples(st.sampled_from(KEYS), st.one_of(st.none(), st.binary(max_size=4))), min_size=1, max_size=4),
        ),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("compact"), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(operations)
def test_is_a_dict_with_a_past(steps: list[tuple[str, list[tuple[str, bytes | None]] | None]]) -> None:
    """Whatever is written, in one transaction or in many at once: reads, lists of the past and watches say what a dict would."""

    async def scenario(path: Path) -> None:
        store = Store.open(path)
        model: dict[str, bytes] = {}
        past: dict[int, dict[str, bytes]] = {store.revision: {}}
        watches: dict[str, tuple[Watch, list[tuple[int, str, bytes | None]]]] = {
            p: (store.watch(p, after=store.revision), []) for p in PREFIXES
        }
        for verb, writes in steps:
            if verb == "reopen":
                for watch, expected in watches.values():
                    assert told(watch.take()) == expected
                revision = store.revision
                await store.close()
                store = Store.open(path)
                assert store.revision == revision
                past = {revision: dict(model)}
                watches = {p: (store.watch(p, after=revision), []) for p in PREFIXES}
            elif verb == "compact":
                store.compact(store.revision)
                past = {store.revision: dict(model)}
            else:
                groups = [[one] for one in writes or ()] if verb == "burst" else [list(dict(writes or ()).items())]
                waiting = []
                for group in groups:
                    transaction = store.transaction()
                    for key, value in group:
                        if value is not None:
                            transaction.put(key, value)
                            model[key] = value
                        elif key in model:
                            transaction.delete(key, b"last")
                            del model[key]
                        else:
                            continue
                        for prefix, (_, expected) in watches.items():
                            if key.startswith(prefix):
                                expected.append((transaction.revision, key, value))
                    if transaction.changes:
                        waiting.append(store.commit(transaction))
                        past[transaction.revision] = dict(model)
                        assert {k: r.value for k in KEYS if (r := store.latest(k))} == model
                for waiter in waiting:
                    await waiter
            for prefix in PREFIXES:
                wanted = {key: value for key, value in sorted(model.items()) if key.startswith(prefix)}
                assert list(shown(store, prefix).items()) == list(wanted.items())
                assert store.count(prefix) == len(wanted)
                assert [r.key for r in store.latest_range(prefix)] == list(wanted)
                for revision, then in past.items():
                    assert shown(store, prefix, at=revision) == {k: v for k, v in then.items() if k.startswith(prefix)}
        for prefix, (watch, expected) in watches.items():
            assert told(watch.take()) == expected
            assert not watch.overflowed
            assert [r.key for r in store.range(prefix, after="pods/a/x", limit=2)] == [
                key for key in sorted(model) if key.startswith(prefix) and key > "pods/a/x"
            ][:2]
        await store.close()

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder) / "db"))


async def test_a_watch_from_the_past_gets_what_it_missed(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    start = store.revision
    first = await write(store, "pods/a/x", b"1")
    second = await write(store, "pods/a/x", b"2")
    await write(store, "nodes/n", b"1")
    assert told(store.watch("pods/", after=start).take()) == [(first, "pods/a/x", b"1"), (second, "pods/a/x", b"2")]
    assert told(store.watch("pods/", after=first).take()) == [(second, "pods/a/x", b"2")]
    store.compact(second)
    with pytest.raises(Compacted, match="too old resource version"):
        store.watch("pods/", after=first)
    with pytest.raises(Compacted):
        store.range("pods/", at=first)
    assert told(store.watch("pods/", after=second).take()) == []
    await store.close()


async def test_the_past_is_bounded(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db", history=3)
    revisions = [await write(store, "pods/a/x", str(i).encode()) for i in range(6)]
    with pytest.raises(Compacted):
        store.watch("pods/", after=revisions[1])
    assert [change.revision for change in store.watch("pods/", after=revisions[2]).take()] == revisions[3:]
    assert shown(store, "pods/", at=revisions[2]) == {"pods/a/x": b"2"}
    await store.close()


async def test_a_slow_watcher_is_dropped_and_hurts_nobody(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    dropped: list[bool] = []
    slow, quick = store.watch("pods/", after=store.revision, queue=3), store.watch("pods/", after=store.revision, queue=100)
    slow.on_overflow = lambda: dropped.append(True)
    for i in range(10):
        await write(store, f"pods/a/{i}", b"")
    assert slow.overflowed
    assert dropped == [True]
    assert slow.take() == []
    assert len(quick.take()) == 10
    store.unwatch(slow)
    store.unwatch(slow)
    await store.close()


async def test_readers_see_only_what_is_on_disk(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    seen: list[str] = []
    store.observe("pods", lambda change: seen.append(change.key))
    waiter = asyncio.ensure_future(put(store, **{"pods/a/x": "1"}))
    await asyncio.sleep(0)
    assert store.get("pods/a/x") is None
    assert store.latest("pods/a/x") is not None
    reached = asyncio.ensure_future(store.reached(store.revision + 1))
    revision = await waiter
    await reached
    assert store.revision == revision
    assert store.get("pods/a/x") is not None
    assert seen == ["pods/a/x"]
    await store.close()


async def test_a_transaction_that_was_overtaken_is_the_callers_error(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    transaction = store.transaction()
    transaction.put("pods/a/x", b"")
    await write(store, "pods/a/y", b"")
    with pytest.raises(RuntimeError, match="overtaken"):
        store.commit(transaction)
    with pytest.raises(RuntimeError, match="without a change"):
        store.commit(store.transaction())
    with pytest.raises(KeyError):
        store.transaction().delete("pods/a/none", b"")
    await store.close()


@contextmanager
def no_room(path: Path) -> Iterator[None]:
    """No file of this process may become longer than the log of the database now is, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name(path.name + "-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_fails_all_writes_under_way_and_leaves_the_state(tmp_path: Path) -> None:
    path = tmp_path / "db"
    store = Store.open(path)
    kept = await write(store, "pods/a/x", b"1")
    watch = store.watch("pods/", after=kept)
    undone: list[str] = []
    with no_room(path):
        waiters = []
        for name in ("x", "y"):
            transaction = store.transaction()
            transaction.put(f"pods/a/{name}", b"2" * 100_000)
            transaction.on_success.append(lambda: undone.append("wrong"))
            transaction.on_failure.append(lambda name=name: undone.append(name))
            waiters.append(store.commit(transaction))
            for _ in range(3):
                await asyncio.sleep(0)  # the first is handed over, the second collects
        reached = asyncio.ensure_future(store.reached(kept + 2))
        for waiter in (*waiters, reached):
            with pytest.raises(Unwritable):
                await waiter
    assert undone == ["y", "x"]
    assert store.refused
    assert store.revision == kept
    assert shown(store, "pods/") == {"pods/a/x": b"1"}
    assert store.latest("pods/a/y") is None
    assert watch.take() == []
    again = await write(store, "pods/a/y", b"3")
    assert again == kept + 1
    assert not store.refused
    await store.close()
    store = Store.open(path)
    assert (store.revision, shown(store, "pods/")) == (again, {"pods/a/x": b"1", "pods/a/y": b"3"})
    await store.close()


async def test_a_second_process_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "db")
    with pytest.raises(StoreInUse, match="open in another process"):
        Store.open(tmp_path / "db")
    await store.close()


async def test_a_layout_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    await Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LayoutMismatch, match="layout 99"):
        Store.open(path)
    other = tmp_path / "other"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE theirs(x)")
    connection.close()
    with pytest.raises(LayoutMismatch):
        Store.open(other)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"no database at all" * 100)
    with pytest.raises(LayoutMismatch, match="not a database"):
        Store.open(garbage)


class Counting(Disk):
    """A file that knows how many keys each commit wrote."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.sizes: list[int] = []

    def write(self, batch: Batch, done: Callable[[BaseException | None], None]) -> None:
        self.sizes.append(len(batch.rows))
        super().write(batch, done)


async def test_what_comes_in_a_row_shares_a_commit(tmp_path: Path) -> None:
    disk = Counting(tmp_path / "x.sqlite")
    store = Store(disk)
    waiting = []
    for number in range(ENOUGH - 1):
        transaction = store.transaction()
        transaction.put(f"pods/a/{number}", b"{}")
        waiting.append(store.commit(transaction))
        await asyncio.sleep(0)  # the next one comes a little later, as requests do
    assert disk.sizes == []
    await asyncio.gather(*waiting)
    assert disk.sizes == [ENOUGH - 1]
    await put(store, **{"pods/a/alone": "{}"})
    assert disk.sizes == [ENOUGH - 1, 1]
    disk.sizes.clear()
    many = []
    for number in range(3 * ENOUGH):
        transaction = store.transaction()
        transaction.put(f"pods/b/{number}", b"{}")
        many.append(store.commit(transaction))
        await asyncio.sleep(0)
    await asyncio.gather(*many)
    assert disk.sizes[0] == ENOUGH  # more are not waited for
    assert sum(disk.sizes) == 3 * ENOUGH
    await store.close()
