"""How many Pods run where: what a choice of node is made from.

Pure. Kept step by step as Pods come and go, and equal to what a count of all Pods would give (a test says so), so that
scheduling one Pod costs the same in a cluster of ten Pods and of ten thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Self

from podwire.objects.core import Pod
from podwire.workloads.kinds import controller_of


def group_of(pod: Pod) -> str:
    """Give what a Pod is one of: its controller, or, without one, its labels."""
    owner = controller_of(pod.metadata)
    if owner is not None:
        return owner.uid or f"{pod.namespace}/{owner.kind}/{owner.name}"
    return f"{pod.namespace}/{sorted(pod.metadata.labels.items())}"


def counts(pod: Pod) -> bool:
    """A Pod takes room until it has ended."""
    return bool(pod.spec.node_name) and pod.status.phase not in ("Succeeded", "Failed")


def host_ports(pod: Pod) -> list[tuple[str, int]]:
    """Give the ports of the node that a Pod takes, as (protocol, number)."""
    return [
        (port.protocol, port.host_port or port.container_port)
        for container in pod.spec.containers
        for port in container.ports
        if port.host_port or pod.spec.host_network
    ]


class Load:
    def __init__(self) -> None:
        self._nodes: Counter[str] = Counter()
        self._groups: Counter[tuple[str, str]] = Counter()
        self._ports: dict[str, Counter[tuple[str, int]]] = {}

    @classmethod
    def of(cls, pods: Iterable[Pod]) -> Self:
        load = cls()
        for pod in pods:
            load.changed(None, pod)
        return load

    def changed(self, old: Pod | None, new: Pod | None) -> None:
        """Take in that a Pod is now another than before."""
        for pod, step in ((old, -1), (new, 1)):
            if pod is not None and counts(pod):
                self.add(pod, pod.spec.node_name, step)

    def add(self, pod: Pod, node: str, step: int = 1) -> None:
        """Count a Pod on a node (or, with -1, no longer)."""
        self._nodes[node] += step
        self._groups[node, group_of(pod)] += step
        if not self._groups[node, group_of(pod)]:
            del self._groups[node, group_of(pod)]
        for protocol, number in host_ports(pod):
            ports = self._ports.setdefault(node, Counter())
            ports[protocol, number] += step
            if not ports[protocol, number]:
                del ports[protocol, number]
            if not ports:
                del self._ports[node]

    def on_node(self, node: str) -> int:
        return self._nodes[node]

    def of_group(self, node: str, group: str) -> int:
        return self._groups[node, group]

    def host_ports(self, node: str) -> Collection[tuple[str, int]]:
        return self._ports.get(node, ())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Load):
            return NotImplemented
        return +self._nodes == +other._nodes and self._groups == other._groups and self._ports == other._ports

    __hash__ = None  # type: ignore[assignment]
