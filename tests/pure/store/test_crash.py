"""What was acknowledged is there after kill -9, under load, again and again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

from podwire.store import Store

KILLS = 8

WRITER = """
import asyncio, sys
from podwire.store import Store

async def client(store, number):
    count = 0
    while True:
        transaction = store.transaction()
        transaction.put(f"pods/{number}/{count % 50}", f"{count}".encode() * 200)
        transaction.put(f"nodes/{number}", f"{count}".encode())
        revision = await store.commit(transaction)
        sys.stdout.write(f"{number} {count} {revision}\\n")
        sys.stdout.flush()
        count += 1

async def main():
    store = Store.open(sys.argv[1])
    await asyncio.gather(*(client(store, number) for number in range(16)))

asyncio.run(main())
"""


def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "db"
    last_revision = 0
    for _ in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            enough = random.randrange(200, 2000)
            lines = [child.stdout.readline() for _ in range(enough)]
            os.kill(child.pid, signal.SIGKILL)
            lines += [line for line in child.stdout if line.endswith(b"\n")]
        acknowledged: dict[int, int] = {}
        for line in lines:
            number, count, revision = map(int, line.split())
            acknowledged[number] = count
            last_revision = max(last_revision, revision)
        asyncio.run(check(path, acknowledged, last_revision))


async def check(path: Path, acknowledged: dict[int, int], last_revision: int) -> None:
    store = Store.open(path)
    try:
        assert store.revision >= last_revision
        for number, count in acknowledged.items():
            node = store.get(f"nodes/{number}")
            assert node is not None
            reached = int(node.value)
            assert reached >= count
            pod = store.get(f"pods/{number}/{reached % 50}")
            # Both halves of a transaction are there, or neither.
            assert pod is not None
            assert (pod.value, pod.revision) == (node.value * 200, node.revision)
    finally:
        await store.close()
