"""The cgroups of a node's Pods: one for each Pod, below it one for each run of a container. Without a tree there are none, and no limits.

    NODE/UID/CONTAINER-N

Not here: what the limits are (``limits``), and how a cgroup says them (``podwire.linux.cgroups``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

from podwire.linux import cgroups
from podwire.linux.cgroups import Limits, Tree
from podwire.objects.core import Container, Pod
from podwire.pods import limits
from podwire.pods.admission import CannotStart, containers


@dataclass(frozen=True)
class PodCgroups:
    """``tree``: the node's part. ``processes``: how many each Pod may have."""

    tree: Tree | None = None
    processes: int | None = None

    def set_up(self) -> None:
        """Make the node's own. Raises OSError."""
        if self.tree is not None:
            cgroups.establish(self.tree, Limits(), divided=True)

    @staticmethod
    def _run(tree: Tree, uid: str, container: str, number: int) -> Tree:
        return tree.below(f"{uid}/{container}-{number}")

    def establish(self, pod: Pod, container: Container, number: int) -> tuple[str, ...]:
        """Make those of a run that is to begin; gives them. Raises CannotStart."""
        if self.tree is None:
            return ()
        uid = pod.metadata.uid
        run = self._run(self.tree, uid, container.name, number)
        try:
            cgroups.establish(self.tree.below(uid), limits.of_pod(pod, self.processes), divided=True)
            cgroups.establish(run, limits.of_container(container))
        except OSError as refused:
            words = f"failed to create containerd task: cannot set limits of cgroups: {refused.strerror}: {refused.filename}"
            raise CannotStart("CreateContainerError", words) from refused
        return run.places()

    def resize(self, pod: Pod, running: Mapping[str, int]) -> str:
        """Give the runs with these numbers, by container, and their Pod what they ask for now; gives why not, where that is refused."""
        if self.tree is None:
            return ""
        uid, whole = pod.metadata.uid, limits.of_pod(pod, self.processes)
        try:
            # In version 1 no part may have more of the processors than the whole: that one is free meanwhile.
            cgroups.change(self.tree.below(uid), replace(whole, cores=None, memory=None))
            for container in containers(pod):
                if container.name in running:
                    own = self._run(self.tree, uid, container.name, running[container.name])
                    cgroups.change(own, limits.of_container(container))
            cgroups.change(self.tree.below(uid), whole)
        except OSError as refused:
            return f"{refused.filename}: {refused.strerror}"
        return ""

    async def ended(self, uid: str, container: str, number: int) -> bool:
        """Take away those of a run that has ended, with what it has left running; True: it had reached its limit of memory."""
        if self.tree is None:
            return False
        run = self._run(self.tree, uid, container, number)
        killed = cgroups.killed_for_memory(run)
        with contextlib.suppress(OSError):  # the Pod's end takes it away
            await asyncio.to_thread(cgroups.remove, run)
        return killed > 0

    async def remove(self, uid: str) -> None:
        """Take away all of a Pod."""
        if self.tree is not None:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(cgroups.remove, self.tree.below(uid))
