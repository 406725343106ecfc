"""api-durability: the API server is killed again and again under load, and every write that a client saw acknowledged must be there.

Sixteen clients create, replace and delete objects of their own, each waiting for its answers, until kill -9 at a random moment. After the
restart each object must be in a state that its client allows: that of the last answer, or that of the one request which was under way. So
both a lost write and half a write are found. ``lost_acknowledged_writes``: over all kills.
"""

from __future__ import annotations

import asyncio
import random
import signal
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from bench.api import call
from bench.api_objects import CONFIG_MAPS, NAMESPACE, config_map
from bench.https_client import Connection, Refused, request
from bench.report import Limit, Report
from tests.running_apiserver import ApiServer, start

KILLS = 200
CLIENTS = 16
NAMES = 5  # objects of each client
LOAD_S = (0.02, 0.25)


@dataclass
class Client:
    """One writer, and what it knows of each name: the stamp last acknowledged (None: there is no object), and the one under way."""

    number: int
    known: dict[str, str | None] = field(default_factory=dict)
    under_way: tuple[str, str | None] | None = None
    acknowledged: int = 0
    written: int = 0

    async def work(self, connection: Connection, choose: random.Random) -> None:
        """Write until the server is gone."""
        while True:
            name = f"c-{self.number}-{choose.randrange(NAMES)}"
            self.written += 1
            stamp: str | None = f"{self.number}.{self.written}"
            if self.known.get(name) is None:
                one, expected = request("POST", CONFIG_MAPS, config_map(name, str(stamp))), 201
            elif choose.random() < 0.25:
                stamp, one, expected = None, request("DELETE", f"{CONFIG_MAPS}/{name}"), 200
            else:
                one, expected = request("PUT", f"{CONFIG_MAPS}/{name}", config_map(name, str(stamp))), 200
            self.under_way = (name, stamp)
            try:
                status, answer = await connection.send(one)
            except Refused:
                return
            if status != expected:
                raise SystemExit(answer.decode())
            self.known[name], self.under_way = stamp, None
            self.acknowledged += 1

    def lost(self, there: dict[str, str]) -> list[str]:
        """Compare with what is there; what is there is known from now on."""
        wrong = []
        for number in range(NAMES):
            name = f"c-{self.number}-{number}"
            allowed = [self.known.get(name)]
            if self.under_way is not None and self.under_way[0] == name:
                allowed.append(self.under_way[1])
            if there.get(name) not in allowed:
                wrong.append(f"{name} is {there.get(name)} instead of {' or '.join(map(str, allowed))}")
            self.known[name] = there.get(name)
        self.under_way = None
        return wrong


async def one_kill(server: ApiServer, clients: list[Client], choose: random.Random) -> None:
    """Write for a moment, and kill."""
    connections = [await Connection.open(server.port, server.context()) for _ in clients]
    tasks = [asyncio.create_task(client.work(connection, choose)) for client, connection in zip(clients, connections, strict=True)]
    await asyncio.sleep(choose.uniform(*LOAD_S))
    assert server.process is not None
    server.process.send_signal(signal.SIGKILL)
    await asyncio.gather(*tasks)
    server.process.wait()
    for connection in connections:
        connection.close()


def present(server: ApiServer) -> dict[str, str]:
    """The stamps of all objects that are there; each must be whole."""
    found = {}
    for item in orjson.loads(call(server, "GET", f"{CONFIG_MAPS}?limit=1000"))["items"]:
        name, data = item["metadata"]["name"], item["data"]
        whole: dict[str, object] = orjson.loads(config_map(name, data["stamp"]))["data"]
        if data != whole:
            raise SystemExit(f"{name} is not whole")
        found[name] = data["stamp"]
    return found


def kill_often(kills: int, seed: int = 0) -> tuple[int, int, list[str]]:
    """Kill the server ``kills`` times. Gives the writes acknowledged, the revision reached, and what was lost."""
    choose = random.Random(seed)
    lost: list[str] = []
    revision = 0
    with tempfile.TemporaryDirectory(prefix="podwire-bench-") as folder:
        server = start(Path(folder))
        try:
            call(server, "POST", "/api/v1/namespaces", orjson.dumps({"metadata": {"name": NAMESPACE}}), 201)
            clients = [Client(number) for number in range(CLIENTS)]
            for _ in range(kills):
                asyncio.run(one_kill(server, clients, choose))
                server.run()
                there = present(server)
                for client in clients:
                    lost += client.lost(there)
                reached = int(orjson.loads(call(server, "GET", f"{CONFIG_MAPS}?limit=1"))["metadata"]["resourceVersion"])
                if reached < revision:
                    lost.append(f"revision {revision}: it went back to {reached}")
                revision = reached
        finally:
            server.kill()
            server.listener.close()
    return sum(client.acknowledged for client in clients), revision, lost


def run() -> Report:
    """Run the benchmark."""
    acknowledged, revision, lost = kill_often(KILLS)
    for line in lost:
        print(line)
    given = {"kills": KILLS, "clients": CLIENTS, "acknowledged": acknowledged, "revision": revision}
    return Report("api-durability", {"lost_acknowledged_writes": len(lost)}, {}, given, {"lost_acknowledged_writes": Limit(most=0)})
