"""Nodes that are kept for Pods which wait until others have gone from there (``status.nominatedNodeName``).

Pure. On such a node another Pod has to fit twice: as if those of its own or a higher priority were there already, since it must not take
their place, and as if they were not, since they may never come: who has to be near one of them, say, has nobody yet.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/#user-exposed-information
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from podwire.objects.core import Node, Pod
from podwire.workloads.scheduler.filters import Question, judged
from podwire.workloads.scheduler.load import Load

Ask = Callable[[], Question]
"""A Pod's question, with what is counted for all nodes counted anew."""


class Judgement:
    """Judges nodes for one Pod. ``kept``: the Pods that it has to yield to, by the name of the node that is kept for them."""

    def __init__(self, ask: Ask, load: Load, kept: Mapping[str, Sequence[Pod]]) -> None:
        self.asked = ask()
        self._ask, self._load, self._kept = ask, load, kept

    def __call__(self, node: Node) -> Sequence[str]:
        """Say why the node may not run the Pod; nothing: it may."""
        return self._beside_expected(node) or judged(self.asked, node)

    def anew(self, node: Node) -> Sequence[str]:
        """The same, where other Pods are there than when this was made."""
        return self._beside_expected(node) or judged(self._ask(), node)

    def _beside_expected(self, node: Node) -> Sequence[str]:
        expected = [pod for pod in self._kept.get(node.name, ()) if not self._load.has(pod, node.name)]
        if not expected:
            return ()
        for pod in expected:
            self._load.add(pod, node.name)
        try:
            return judged(self._ask(), node)
        finally:
            for pod in expected:
                self._load.add(pod, node.name, -1)

    def feasible(self, nodes: Iterable[Node]) -> tuple[list[Node], dict[str, Sequence[str]]]:
        """Give the nodes that may run the Pod, and why each other one may not."""
        reasons = [(node, self(node)) for node in nodes]
        return [node for node, why in reasons if not why], {node.name: why for node, why in reasons if why}
