"""What was acknowledged is there when the power goes: everything written after the last sync is dropped, or torn."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from podwire.store import Store
from podwire.store.disk import Disk
from pure.store.lossy_disk import Connection, LossyVFS, Power

CLIENTS = 8
WRITES = 60  # of each client
ROOM = 12  # objects of each client

Acknowledged = dict[str, tuple[int, int]]  # key -> number of the write, and its revision


@pytest.fixture
def power() -> Iterator[Power]:
    power = Power()
    vfs = LossyVFS(power)
    yield power
    vfs.unregister()


async def write(store: Store, client: int, acknowledged: Acknowledged) -> None:
    for number in range(WRITES):
        transaction = store.transaction()
        keys = (f"pods/{client}/{number % ROOM}", f"nodes/{client}")
        for key in keys:
            transaction.put(key, f"{number} ".encode() * 150)
        revision = await store.commit(transaction)
        for key in keys:
            acknowledged[key] = (number, revision)


def moments(power: Power, path: Path, connection: type[Connection], seed: int) -> list[tuple[dict[str, bytes], Acknowledged]]:
    """Write, and at random moments remember what a loss of power would leave, and what had been acknowledged."""
    choose = random.Random(seed)
    seen: list[tuple[dict[str, bytes], Acknowledged]] = []
    acknowledged: Acknowledged = {}

    def moment() -> None:
        if choose.random() < 0.08:
            so_far = dict(acknowledged)
            seen.append((power.loss() if choose.random() < 0.5 else power.torn(choose), so_far))

    async def main() -> None:
        store = Store(Disk(path, connect=connection))
        power.moment = moment
        await asyncio.gather(*(write(store, client, acknowledged) for client in range(CLIENTS)))
        power.moment = lambda: None
        seen.append((power.loss(), dict(acknowledged)))
        await store.close()

    asyncio.run(main())
    return seen


def lay_down(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


async def lost(folder: Path, acknowledged: Acknowledged) -> list[str]:
    """Open what is left with the SQLite that everybody has. Gives what is missing or half there."""
    store = Store.open(folder / "db")
    try:
        wrong = []
        for key, (number, revision) in acknowledged.items():
            record = store.get(key)
            if record is None or record.revision < revision or int(record.value.split()[0]) < number:
                wrong.append(f"{key}: write {number} at revision {revision} is lost")
        for client in range(CLIENTS):
            node = store.get(f"nodes/{client}")
            pod = None if node is None else store.get(f"pods/{client}/{int(node.value.split()[0]) % ROOM}")
            if node is not None and (pod is None or (pod.value, pod.revision) != (node.value, node.revision)):
                wrong.append(f"nodes/{client}: half a transaction")
        if store.revision < max((revision for _, revision in acknowledged.values()), default=0):
            wrong.append("the revision went back")
        return wrong
    finally:
        await store.close()


def found_lost(power: Power, folder: Path, connection: type[Connection], seed: int) -> tuple[int, list[str]]:
    seen = moments(power, folder / "db", connection, seed)
    wrong: list[str] = []
    for number, (files, acknowledged) in enumerate(seen):
        lay_down(folder / f"after-{number}", files)
        wrong += asyncio.run(lost(folder / f"after-{number}", acknowledged))
    return len(seen), wrong


@pytest.mark.parametrize("seed", range(3))
def test_nothing_acknowledged_is_lost(power: Power, tmp_path: Path, seed: int) -> None:
    # The log is folded into the file often, so that moments fall into that, too.
    connection = type("Folding", (Connection,), {"replaced": {"wal_autocheckpoint = 4000": "wal_autocheckpoint = 20"}})
    moments_seen, wrong = found_lost(power, tmp_path, connection, seed)
    assert moments_seen > 5
    assert wrong == []


def test_the_disk_forgets_what_is_not_synced(power: Power, tmp_path: Path) -> None:
    """The control: without syncs, acknowledged writes are lost, and it is seen."""
    careless = type("Careless", (Connection,), {"replaced": {"synchronous = FULL": "synchronous = OFF"}})
    _, wrong = found_lost(power, tmp_path, careless, 0)
    assert wrong
