"""Makes the kernel of one node forget stale UDP flows.

What belongs here: reading the connection table and deleting from it. What must not: which flows are stale (connections.py), when to look
(agent.py). It blocks, and on a busy node a reading takes milliseconds: callers give it a thread.
"""

from __future__ import annotations

from podwire.linux.conntrack import Conntrack
from podwire.linux.network import Network
from podwire.services.connections import Ways, questions, stale
from podwire.services.layout import Family


def forget(family: Family, wanted: Ways, namespace: int | None = None) -> int:
    """Delete the stale flows of these ways. Returns how many there were. Raises KernelRefused."""
    if not wanted:
        return 0
    with Conntrack(namespace) as table:
        flows = [flow for question in questions(wanted) for flow in table.flows(family.name, question)]
        if not flows:
            return 0
        with Network(namespace) as network:
            local = frozenset(one.address.ip.packed for one in network.addresses())
        return table.delete(list(stale(flows, wanted, local)))
