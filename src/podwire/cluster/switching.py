"""Nodes and zones that come, go, stop and start while the cluster runs: the supervisor's part of it.

A new set of changes (changes.py) is carried out as the difference to what was: first what ends, then what begins. It is written down
before; so a supervisor that was killed in between finds what should be and what is there, and does the rest.

A node that stops is a machine whose plug is pulled: everything in its PID namespace ends at once, its Pods' network namespaces with it, and
the fabric carries nothing to it. A node that starts again, or whose first process died, has a network namespace that is new, as a machine
has after a reboot; its disk (``nodes/NAME``) is as it was. A zone that is cut off runs on, and the fabric drops its packets.

What must not be here: which names and addresses (plan.py), what a person is told (cli/).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from podwire.cluster import changes, places, state
from podwire.cluster.changes import Changes
from podwire.cluster.control import Refused
from podwire.cluster.first_processes import FirstProcesses
from podwire.cluster.packets import Message
from podwire.cluster.paths import Paths
from podwire.cluster.plan import VPC, Plan
from podwire.cluster.processes import Processes


class Switching:
    """``held`` and ``networks`` are the supervisor's tables of descriptors, changed here; ``replan`` makes a plan of changes."""

    def __init__(self, paths: Paths, plan: Plan, held: dict[str, int], networks: dict[str, int], replan: Callable[[Changes], Plan]) -> None:
        self._paths = paths
        self.plan = plan
        self._held = held
        self._networks = networks
        self._replan = replan
        self._first: FirstProcesses
        self._processes: Processes

    def begin(self, first: FirstProcesses, processes: Processes) -> None:
        """Bring what is there to what should be, at a start."""
        self._first, self._processes = first, processes
        for node in first.strays(self.plan.running):
            first.end_stray(node)
        processes.replan(self.plan.processes, self.plan.changes.stopped)
        places.darken(self._networks[VPC], self.plan.dark)

    def rebooted(self, node: str) -> int:
        """Give a node that starts anew a network namespace that is new."""
        return self._make(node)

    def change(self, message: Message, *_: object) -> Message:
        """The word ``nodes``: have these changes. Refused where they are not made from the ones of now."""
        wanted = changes.decode(_bytes(message["changes"]))
        if wanted.number <= self.plan.changes.number or int(message["from"]) != self.plan.changes.number:
            raise Refused("another command has changed the nodes meanwhile; say it again")
        before, after = self.plan, self._replan(wanted)
        state.write_changes(self._paths, wanted)
        self.plan = after
        gone = [node for node in before.nodes if node not in after.nodes]
        running = set(after.running)
        for name in set(before.running) - running:
            self._first.stop(name)
        self._processes.replan(after.processes, wanted.stopped)
        places.darken(self._networks[VPC], after.dark)
        for node in gone:
            self._first.stop(node.name)
            places.remove(self._networks[VPC], node.interface)
            self._release(f"node/{node.name}")
        for name in after.running:
            if name not in before.running:
                self._first.power(name, self._networks.get(f"node/{name}", -1))
                self._first.start(name)
        self._processes.replan(after.processes, wanted.stopped)
        return {"number": wanted.number}

    def restart(self, message: Message, *_: object) -> Message:
        """The word ``reboot``: pull a node's plug and put it back."""
        node = str(message["node"])
        if node not in self.plan.running:
            raise Refused(f"node {node} does not run")
        self._first.kill(node)
        return {}

    def _make(self, node: str) -> int:
        place = f"node/{node}"
        self._release(place)
        made = places.extend(self.plan, self._networks, [place])[place]
        self._networks[place] = self._held[f"place/{place}"] = made
        self._first.cluster.hold(f"place/{place}", made)
        return made

    def _release(self, place: str) -> None:
        """Let go of a place. What is left of its processes keeps it for a moment more."""
        descriptor = self._networks.pop(place, None)
        self._held.pop(f"place/{place}", None)
        if descriptor is not None:
            with contextlib.suppress(OSError):
                self._first.cluster.release(f"place/{place}")
            os.close(descriptor)


def _bytes(tree: Any) -> bytes:
    return json.dumps(tree).encode()
