"""What the containers of a Pod share beside its network: System V IPC, POSIX message queues, and the shared memory at /dev/shm.

An IPC namespace is made when the first program of a Pod needs one: stand-ins, which are threads of one process, do without, until somebody
executes a program in one. The node's first process holds it, as it does the network's, so that it outlives containers and this agent. The
files of /dev/shm are in a folder on the cluster's tmpfs, whose containers see it there. A Pod with ``hostIPC`` has the node's of both.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Host Namespaces); ipc_namespaces(7)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path

from podwire.linux import namespaces, sysctl
from podwire.linux.errors import KernelRefused
from podwire.linux.init_client import AsyncInitClient
from podwire.objects.core import Pod
from podwire.pods import admission

SHARED_MEMORY = "/dev/shm"  # noqa: S108  (the place that shm_open(3) names)
_HELD = "ipc/pod/"
_NODE = "node"


def name_of(pod: Pod) -> str | None:
    """Under which name the Pod's IPC namespace is held; None: it has the node's, where its programs are started."""
    return None if pod.spec.host_ipc else f"{_HELD}{pod.metadata.uid}"


class PodIpc:
    """``folder``: on a tmpfs that ends with the node."""

    def __init__(self, client: AsyncInitClient, folder: Path) -> None:
        self._client, self._folder = client, folder
        self._known: set[str] = set()
        self._making = asyncio.Lock()

    async def follow(self) -> None:
        """Learn what an agent before this one has made. Call it once, before anything else."""
        for name, fd in (await self._client.give(_HELD)).items():
            os.close(fd)
            self._known.add(name)

    async def ensure(self, pod: Pod) -> None:
        """Make the Pod's IPC namespace, with the settings that it asks for, unless it is there. Raises KernelRefused."""
        name = name_of(pod)
        if name is None:
            return
        async with self._making:  # the containers of a Pod start at the same time
            if name in self._known:
                return
            settings = admission.ipc_sysctls(pod)
            fd = await asyncio.to_thread(namespaces.create_ipc, lambda: sysctl.write_all(settings))
            try:
                await self._client.hold(name, fd)
            finally:
                os.close(fd)
            self._known.add(name)

    def shared_memory(self, pod: Pod) -> str:
        """The folder of the Pod's /dev/shm."""
        folder = self._folder / (_NODE if pod.spec.host_ipc else pod.metadata.uid)
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o1777)  # as /dev/shm is everywhere; who may come here, the folders above say
        return str(folder)

    async def release(self, uid: str) -> None:
        """Let go of a Pod's; it ends with the last program that is in it."""
        name = f"{_HELD}{uid}"
        if name not in self._known:
            return
        self._known.discard(name)
        shutil.rmtree(self._folder / uid, ignore_errors=True)
        with contextlib.suppress(KernelRefused):
            await self._client.release(name)
