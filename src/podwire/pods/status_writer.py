"""Writes a Pod's status: what is so now, in as few requests as may be.

A change asks for a write; changes that come together are one. The first write waits a moment for the Pod to become ready, so that a
Pod whose containers are there at once costs one. The same task makes the last request of a Pod's life: the object's deletion.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from podwire.client.errors import ApiError, Unreachable
from podwire.objects.core import Pod
from podwire.objects.resources import PODS
from podwire.pods.host import Host
from podwire.pods.runs import Record
from podwire.pods.status import RESIZE, Tree, status

FIRST_S = 0.15
"""How long the first write waits for the Pod to be ready."""
TOGETHER_S = 0.02
"""Changes within this time are one write."""
_RETRY_S = (0.2, 10.0)


class Subject(Protocol):
    """The Pod as it is now."""

    pod: Pod
    record: Record


class StatusWriter:
    """One Pod's status."""

    def __init__(self, host: Host, subject: Subject) -> None:
        self._host = host
        self._subject = subject
        self._dirty = asyncio.Event()
        self._written: Tree | None = None
        self._gone = False

    def changed(self) -> None:
        """Something that the status says may have changed."""
        self._dirty.set()

    async def run(self) -> None:
        """Write whenever something has changed, until cancelled or until there is no object to write to."""
        wait_s = _RETRY_S[0]
        while not self._gone:
            await self._dirty.wait()
            await self._settle()
            self._dirty.clear()
            try:
                await self._write()
            except (ApiError, Unreachable) as error:
                pod = self._subject.pod
                self._host.log.warning("the status of pod %s/%s is not written yet: %s", pod.namespace, pod.name, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _RETRY_S[1])
                self._dirty.set()
            else:
                wait_s = _RETRY_S[0]

    def _tree(self) -> Tree:
        subject = self._subject
        return status(subject.pod, subject.record, self._host.facts, self._host.now(), self._written)

    async def _settle(self) -> None:
        if self._written is not None:
            await asyncio.sleep(TOGETHER_S)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                while not _is_ready(self._tree()):
                    self._dirty.clear()
                    await self._dirty.wait()

    async def _write(self) -> None:
        tree = self._tree()
        if tree == self._written:
            return
        pod = self._subject.pod
        had_resize = any(one.type == RESIZE for one in pod.status.conditions) or (self._written is not None and has_resize(self._written))
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": _replacing(tree, self._written, had_resize=had_resize)}
        try:
            await self._host.client.patch(PODS, pod.name, pod.namespace, patch, kind="strategic", subresource="status")
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            self._gone = True  # deleted, perhaps made anew under the same name; the watch tells the rest
        self._written = tree

    async def finish(self, *, vanished: bool) -> None:
        """Say that nothing of the Pod is left on the node: its object may go. Waits for the API server.

        How programs ended is written before: somebody may wait for that, and finalizers may keep the object.
        """
        if vanished:
            return
        if self._subject.pod.metadata.finalizers or any(run.program for run in self._subject.record.runs.values()):
            with contextlib.suppress(ApiError, Unreachable):
                await self._write()
        wait_s = _RETRY_S[0]
        while True:
            pod = self._subject.pod
            try:
                await self._host.client.delete(PODS, pod.name, pod.namespace, grace=0, uid=pod.metadata.uid)
            except ApiError as error:
                if error.not_found or error.conflict:
                    return
                self._host.log.warning("pod %s/%s is not deleted yet: %s", pod.namespace, pod.name, error)
            except Unreachable as error:
                self._host.log.warning("pod %s/%s is not deleted yet: %s", pod.namespace, pod.name, error)
            else:
                return
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _RETRY_S[1])


def _is_ready(tree: Tree) -> bool:
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in tree["conditions"])


def _replacing(tree: Tree, written: Tree | None, *, had_resize: bool) -> Tree:
    """The patch that makes the status this one. Addresses are merged by value, so that former ones must be taken away by name."""
    patch = dict(tree)
    for ips in ("podIPs", "hostIPs"):
        if ips in tree and (written is None or written.get(ips) != tree[ips]):
            patch[ips] = [{"$patch": "replace"}, *tree[ips]]
    # Conditions that others have written stay; the one of ours that comes and goes is taken away by name.
    if had_resize and not has_resize(tree):
        patch["conditions"] = [*tree["conditions"], {"$patch": "delete", "type": RESIZE}]
    return patch


def has_resize(tree: Tree) -> bool:
    """Whether a status that was made here says that the Pod waits for resources."""
    return any(one["type"] == RESIZE for one in tree["conditions"])
