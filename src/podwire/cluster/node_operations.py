"""What a person does to nodes, zones and node pools of a running cluster: the command line's part of it.

A change is made in one step: the files of a new node (credentials, configuration) are written, then the supervisor is asked to have the
new set of changes (switching.py). What belongs to the API (the Node, its Instance, draining) is asked of the API, as an administrator.

What must not be here: how anything looks (cli/), which addresses a node gets (plan.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podwire.cluster import changes, control_client, identity, lifecycle, state
from podwire.cluster.changes import Changes, Upgrade, known
from podwire.cluster.paths import Paths
from podwire.cluster.plan import Plan, new_node, plan
from podwire.cluster.problem import Problem
from podwire.cluster.spec import parse
from podwire.cluster.upgrade import Add, Remove, Replace, next_step

_MEANWHILE = "another command has changed the nodes meanwhile"
_ATTEMPTS = 5
_LOOK_AGAIN_S = 0.1


class BeingUpgraded(Problem):
    """Another command is at it."""


@dataclass(frozen=True)
class Operation:
    """One command on one cluster. ``wait_s`` 0: what was asked for is not waited for. ``told`` gets what goes on, for a person."""

    place: Paths
    cluster: str
    wait_s: float
    told: Callable[[str], None]

    def current(self) -> Plan:
        """The nodes as they are. Raises Problem where there is no cluster."""
        kept = state.read(self.place)
        return plan(parse(json.dumps(kept.spec)), self.place, api_port=kept.api_port, changes=state.read_changes(self.place))

    def _alter(self, make: Callable[[Plan], Changes]) -> Plan:
        """Change the nodes; gives them as they are then. Raises Problem."""
        for attempt in range(_ATTEMPTS):
            before = self.current()
            wanted = make(before)
            after = plan(before.spec, self.place, api_port=0, changes=wanted)
            if {node.name for node in after.nodes} - {node.name for node in before.nodes}:
                lifecycle.prepare(self.place, state.read(self.place), wanted)
            try:
                tree = json.loads(changes.encode(wanted))
                control_client.ask(self.place, "nodes", **{"from": before.changes.number, "changes": tree})
            except Problem as problem:
                if _MEANWHILE not in str(problem) or attempt == _ATTEMPTS - 1:
                    raise
                continue
            return after
        raise AssertionError("unreachable")

    # Power -------------------------------------------------------------------------------------------------------------------

    def stop(self, names: Iterable[str]) -> None:
        """Pull the plugs, and wait until nothing of the nodes runs. Raises Problem."""
        names = list(names)

        def make(now: Plan) -> Changes:
            known("node", names, [node.name for node in now.nodes])
            return now.changes.stop(names)

        self._alter(make)
        self._wait_processes(names, lambda process: process["state"] == "stopped" and not process["pid"], "to stop")

    def start(self, names: Iterable[str]) -> None:
        """Switch nodes on, and wait until they are Ready. Raises Problem."""
        names = list(names)

        def make(now: Plan) -> Changes:
            known("node", names, [node.name for node in now.nodes])
            return now.changes.start(names)

        self._alter(make)
        self._wait_up(names)

    def restart(self, names: Iterable[str]) -> None:
        """Pull the plugs and put them back, and wait until the nodes are Ready. Raises Problem."""
        names = list(names)
        known("node", names, [node.name for node in self.current().nodes])
        before = {process["name"]: process["pid"] for process in control_client.ask(self.place, "status")["processes"]}
        for name in names:
            control_client.ask(self.place, "reboot", node=name)
        self._wait_processes(names, lambda process: process["state"] == "ready" and process["pid"] != before[process["name"]], "to come up")
        self._wait_ready(names)

    def stop_zone(self, zone: str) -> None:
        """Cut a zone off. Raises Problem."""
        self._zone(zone, lambda now: now.changes.stop_zone(zone))

    def start_zone(self, zone: str) -> None:
        """Join a zone again, and wait until its nodes are Ready. Raises Problem."""
        after = self._zone(zone, lambda now: now.changes.start_zone(zone))
        self._wait_ready([node.name for node in after.nodes if node.zone == zone and node.name in after.running])

    def _zone(self, zone: str, make: Callable[[Plan], Changes]) -> Plan:
        def checked(now: Plan) -> Changes:
            known("zone", [zone], sorted({node.zone for node in now.nodes}))
            return make(now)

        return self._alter(checked)

    # Nodes that come and go --------------------------------------------------------------------------------------------------

    def add(self, name: str = "", pool: str = "", zone: str = "") -> str:
        """Add a node, and wait until it is Ready; gives its name. Raises Problem.

        Without a zone it goes where the pool has the fewest nodes.
        """
        made: list[str] = []

        def make(now: Plan) -> Changes:
            if name in {node.name for node in now.nodes}:
                raise Problem(f"there is a node {name} already")
            if name and not identity.is_node_name(name):
                raise Problem(f"{name!r} is no name of a node: {identity.NODE_NAME_RULE}", 2)
            pools = {one.name: one for one in now.spec.node_pools}
            chosen = pool or now.spec.node_pools[0].name
            known("node pool", [chosen], sorted(pools))
            zones = pools[chosen].zones
            if zone:
                known("zone", [zone], zones)
            counts = {each: sum(1 for node in now.nodes if node.zone == each and node.pool == chosen) for each in zones}
            node = new_node(now, chosen, zone or min(zones, key=lambda each: counts[each]), name)
            made[:] = [node.name]
            return now.changes.add(node)

        self._settle()
        after = self._alter(make)
        self._api(lambda client: _add_instance(client, after, made[0]))
        self._wait_up(made)
        return made[0]

    def delete(self, name: str) -> None:
        """Delete a node as a VM is deleted, and what the API has of it. Raises Problem."""

        def make(now: Plan) -> Changes:
            known("node", [name], [node.name for node in now.nodes])
            if len(now.nodes) == 1:
                raise Problem(f"{name} is the only node: a cluster needs at least one")
            return now.changes.delete(name)

        self._settle()
        self._alter(make)
        self._forget(name)

    def drain(self, name: str) -> int:
        """Cordon a node and have its Pods move; gives how many there were. Raises Problem."""
        known("node", [name], [node.name for node in self.current().nodes])
        from podwire.cluster.drain import drain

        return int(self._api(lambda client: drain(client, name, self.wait_s, self.told)))

    def upgrade(self, pool: str, surge: int, unavailable: int) -> list[tuple[str, str]]:
        """Recreate every node of a pool, as GKE's surge upgrade does; gives the names, old and new. Raises Problem.

        ``surge`` nodes more than there are, ``unavailable`` fewer, at most, at any moment. One that was interrupted goes on where it was.
        """
        with self._alone(pool):
            return self._upgrade(pool, surge, unavailable)

    @contextlib.contextmanager
    def _alone(self, pool: str) -> Iterator[None]:
        """One command at a time goes on with a pool's upgrade. Raises Problem where another one does."""
        known("node pool", [pool], sorted(one.name for one in self.current().spec.node_pools))
        try:
            held = state.take_upgrade(self.place, pool)
        except state.Busy:
            raise BeingUpgraded(f"node pool {pool!r} is being upgraded by another command") from None
        try:
            yield
        finally:
            os.close(held)

    def _upgrade(self, pool: str, surge: int, unavailable: int) -> list[tuple[str, str]]:
        self._settle()
        if self.current().changes.upgrade(pool) is None:
            self._alter(lambda now: now.changes.begin_upgrade(pool, [node.name for node in now.nodes if node.pool == pool]))
        before = self.current()
        begun = before.changes.upgrade(pool) or Upgrade(pool, ())
        self._wait_up([node.name for node in before.nodes if node.pool == pool and node.name not in (*begun.old, *before.changes.stopped)])
        replaced: list[tuple[str, str]] = []
        while True:
            now = self.current().changes.upgrade(pool) or Upgrade(pool, ())
            step = next_step(now, surge, unavailable, self._api(_cordoned))
            self.told(f"[{len(replaced)}/{len(begun.old)}] node pool {pool}")
            match step:
                case Add(like):
                    self._add_ahead(pool, like)
                case Replace(nodes):
                    self._drain([old for old, _ in nodes])
                    made = [(old, self._replace(pool, old, ahead)) for old, ahead in nodes]
                    self._wait_up([new for _, new in made])
                    replaced += made
                case Remove(node):
                    self._drain([node])
                    self.delete(node)
                case None:
                    self._alter(lambda now: now.changes.end_upgrade(pool))
                    return replaced

    def cancel_upgrade(self, pool: str) -> list[str]:
        """Leave a pool with the nodes that it has now, old and new; gives those that were not replaced. Raises Problem."""
        with self._alone(pool):
            return self._cancel_upgrade(pool)

    def _cancel_upgrade(self, pool: str) -> list[str]:
        self._settle()
        now = self.current().changes.upgrade(pool)
        if now is None:
            raise Problem(f"no upgrade of node pool {pool!r} is under way")
        left = list(now.old)
        self._api(lambda client: _uncordon(client, left))
        for node in now.surplus:
            self._drain([node])
            self.delete(node)
        self._alter(lambda now: now.changes.end_upgrade(pool))
        return left

    def _add_ahead(self, pool: str, like: str) -> None:
        made: list[str] = []

        def make(now: Plan) -> Changes:
            known("node", [like], [node.name for node in now.nodes])
            node = new_node(now, pool, now.node(like).zone)
            made[:] = [node.name]
            return now.changes.add_ahead(node)

        after = self._alter(make)
        self._api(lambda client: _add_instance(client, after, made[0]))
        self._wait_up(made)

    def _replace(self, pool: str, old: str, ahead: str) -> str:
        """A node gives way to one that is there already, or to one that comes in the same moment; gives its name."""
        made: list[str] = []

        def make(now: Plan) -> Changes:
            known("node", [old], [node.name for node in now.nodes])
            new = ahead or new_node(now, pool, now.node(old).zone)
            made[:] = [new if isinstance(new, str) else new.name]
            return now.changes.replace(old, new)

        after = self._alter(make)
        self._api(lambda client: _add_instance(client, after, made[0]))
        self._forget(old)
        return made[0]

    def _drain(self, nodes: list[str]) -> None:
        """Drain nodes, all cordoned before the first Pod moves: what leaves one does not go to another one that is about to go."""
        from podwire.cluster.drain import cordon, drain

        async def work(client: Any) -> None:
            for node in nodes:
                await cordon(client, node)
            await asyncio.gather(*(drain(client, node, self.wait_s, self.told) for node in nodes))

        self._api(work)

    def _settle(self) -> None:
        """Put right what a command that was killed has left: nodes that the cloud does not know yet, or still knows."""
        now = self.current()
        nodes = {node.name for node in now.nodes}
        known_once = {
            file.removeprefix("node.") for file in os.listdir(os.path.dirname(self.place.kubeconfig(""))) if file.startswith("node.")
        }

        async def work(client: Any) -> list[str]:
            instances, registered = await _names(client)
            for name in sorted(nodes - instances):
                await _add_instance(client, now, name)
            return sorted((known_once - nodes) & (instances | registered))

        for name in self._api(work):
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._api(lambda client: _forget(client, name))
        for file in (self.place.kubeconfig(f"node/{name}"), self.place.config(f"node/{name}")):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(file)

    # Waiting -----------------------------------------------------------------------------------------------------------------

    def _wait_up(self, names: list[str]) -> None:
        self._wait_processes(names, lambda process: process["state"] == "ready", "to come up")
        self._wait_ready(names)

    def _wait_processes(self, names: list[str], good: Callable[[dict[str, Any]], bool], what: str) -> None:
        wanted = {f"{kind}/{name}" for name in names for kind in ("node", "standins")}

        def look() -> str:
            status = control_client.ask(self.place, "status")
            left = [process for process in status["processes"] if process["name"] in wanted and not good(process)]
            return f"process {left[0]['name']} is {left[0]['state']}" if left else ""

        self._until(look, what)

    def _wait_ready(self, names: list[str]) -> None:
        def look() -> str:
            left: list[str] = self._api(lambda client: _not_ready(client, names))
            return f"node {left[0]} is not Ready" if left else ""

        if self.wait_s:
            self._until(look, "to be Ready")

    def _until(self, look: Callable[[], str], what: str) -> None:
        limit = time.monotonic() + self.wait_s
        while self.wait_s:
            left = look()
            if not left:
                return
            self.told(left)
            if time.monotonic() > limit:
                raise Problem(f"waited {self.wait_s:g} s {what}: {left}")
            time.sleep(_LOOK_AGAIN_S)

    def _api(self, work: Callable[[Any], Any]) -> Any:
        """Do something with a client of the API. Raises Problem."""
        from podwire.client import kubeconfig
        from podwire.client.api import Client
        from podwire.client.errors import ApiError, Unreachable
        from podwire.cluster import kubeconfig as entries

        entry = identity.admin_entry(self.place, self.cluster, f"https://127.0.0.1:{state.read(self.place).api_port}")

        async def run() -> Any:
            async with Client(kubeconfig.from_tree(entries.document(entry), Path(self.place.root))) as client:
                return await work(client)

        try:
            return asyncio.run(run())
        except (ApiError, Unreachable) as error:
            raise Problem(str(error)) from error


async def _not_ready(client: Any, names: list[str]) -> list[str]:
    from podwire.objects.resources import NODES

    ready = {node.name for node in await client.list(NODES) if node.ready}
    return [name for name in names if name not in ready]


async def _cordoned(client: Any) -> set[str]:
    from podwire.objects.resources import NODES

    return {node.name for node in await client.list(NODES) if node.spec.unschedulable}


async def _uncordon(client: Any, names: list[str]) -> None:
    from podwire.cluster.drain import cordon

    cordoned = await _cordoned(client)
    for name in names:
        if name in cordoned:
            await cordon(client, name, unschedulable=False)


async def _names(client: Any) -> tuple[set[str], set[str]]:
    """The names of all instances, and of all nodes, as the API has them."""
    from podwire.objects.resources import INSTANCES, NODES

    return {one.name for one in await client.list(INSTANCES)}, {one.name for one in await client.list(NODES)}


async def _add_instance(client: Any, now: Plan, name: str) -> None:
    from podwire.client.errors import ApiError
    from podwire.cluster.addons import instance
    from podwire.objects.resources import INSTANCES

    try:
        await client.create(INSTANCES, instance(now.node(name)))
    except ApiError as error:
        if not error.already_exists:
            raise


async def _forget(client: Any, name: str) -> None:
    from podwire.client.errors import ApiError
    from podwire.objects.resources import INSTANCES, NODES

    for resource in (NODES, INSTANCES):  # as long as the second is there, it is seen that the first may be, too
        try:
            await client.delete(resource, name)
        except ApiError as error:
            if not error.not_found:
                raise
