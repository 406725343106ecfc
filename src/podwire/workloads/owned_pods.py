"""The Pods of a kind of controller, in the world: who must be looked at when a Pod changes, and making, deleting, adopting them.

What belongs here: what ReplicaSets, ReplicationControllers, DaemonSets and StatefulSets do alike. What must not: any decision.

Pods are made many at a time, under names chosen before, so that what is on its way can be told from what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

from podwire.client.errors import ApiError
from podwire.client.events import EventRecorder
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.core import Pod
from podwire.objects.meta import LabelSelector, Object
from podwire.objects.resources import PODS, Resource
from podwire.workloads import ownership, work
from podwire.workloads.expectations import Expectations
from podwire.workloads.kinds import Tree, controller_of, label_entries, selector_entry

Owner = TypeVar("Owner", bound=Object)

_CREATED, _DELETED = "Created pod: {pod}", "Deleted pod: {pod}"


class OwnedPods(Generic[Owner]):
    """The words of Events may name {pod} and {owner}, ``failed`` also {error} and {action} (create, delete)."""

    def __init__(
        self,
        context: Context,
        resource: Resource[Owner],
        events: EventRecorder,
        selector: Callable[[Owner], LabelSelector],
        *,
        created: str = _CREATED,
        deleted: str = _DELETED,
        failed: str = "Error: {error}",
    ) -> None:
        self._context, self._client, self._resource, self._events = context, context.client, resource, events
        self._selector = selector
        self._created, self._deleted, self._failed = created, deleted, failed
        self.owners: Informer[Owner] = context.informer(resource, indexes={"selector": self._entries})
        self.pods = context.informer(PODS, indexes={"controller": _controller, "orphan": _orphan})
        self.expectations = Expectations()

    def follow(self, mark: Callable[[str], None]) -> None:
        """Subscribe to the owners and their Pods; ``mark`` is told the key of each owner that has to be looked at. To be called once."""
        self._mark = mark
        self.owners.subscribe(self._owner_changed)
        self.pods.subscribe(self._pod_changed)

    def _entries(self, owner: Owner) -> list[tuple[str, str, str]]:
        return [selector_entry(owner.namespace, self._selector(owner).match_labels)]

    def _owner_changed(self, old: Owner | None, new: Owner | None) -> None:
        value = new or old
        if value is not None:
            self._mark(value.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        value = new or old
        if value is None:
            return
        if new is not None:
            self.expectations.seen(f"+{new.key}")
        if new is None or new.terminating:
            self.expectations.seen(f"-{value.metadata.uid}")
        owner = controller_of(value.metadata)
        former = controller_of(old.metadata) if old is not None else None
        for reference in {owner, former} - {None}:
            if reference is not None and (reference.kind, reference.api_version) == (self._resource.kind, self._resource.api_version):
                self._mark(f"{value.namespace}/{reference.name}")
        if owner is None and new is not None and not new.terminating:
            owners = self.owners.table.snapshot()
            for entry in label_entries(new.namespace, new.metadata.labels):
                for candidate in owners.by("selector", entry):
                    if self._selector(candidate).matches(new.metadata.labels):
                        self._mark(candidate.key)

    def candidates(self, owner: Owner) -> list[Pod]:
        """Give the Pods that the owner controls, and those that nobody controls and its selector matches."""
        pods, selector = self.pods.table.snapshot(), self._selector(owner)
        orphans = [pod for pod in pods.by("orphan", owner.namespace) if selector.matches(pod.metadata.labels)]
        return [*pods.by("controller", owner.metadata.uid), *orphans]

    def controlled(self, owner: Owner) -> Sequence[Pod]:
        return self.pods.table.by("controller", owner.metadata.uid)

    def waiting(self, key: str) -> float:
        """Give the seconds for which nothing may be decided, since what was done has not been seen yet; 0.0 for: decide."""
        return self.expectations.waiting(key, self._context.clock())

    async def own(self, owner: Owner, adopt: Iterable[Pod], release: Iterable[Pod]) -> None:
        for pod in adopt:
            await self._client.patch(PODS, pod.name, pod.namespace, ownership.adoption(self._resource, owner, pod))
        for pod in release:
            await self._client.patch(PODS, pod.name, pod.namespace, ownership.release(owner, pod))

    async def create(self, owner: Owner, trees: Iterable[Tree]) -> str:
        """Make Pods. Returns why not, in the API's words."""

        async def make(tree: Tree) -> None:
            name = tree["metadata"]["name"]
            mark = f"+{owner.namespace}/{name}"
            self.expectations.expect(owner.key, mark, self._context.clock())
            try:
                made = await self._client.create(PODS, tree)
            except BaseException:
                self.expectations.seen(mark)
                raise
            if made.key in self.pods.table:
                self.expectations.seen(mark)
            self._events.event(owner, "Normal", "SuccessfulCreate", self._created.format(pod=name, owner=owner.name))

        trees = list(trees)
        results = await work.together([lambda tree=tree: make(tree) for tree in trees])  # type: ignore[misc]
        return self._refusal(owner, "create", [tree["metadata"]["name"] for tree in trees], results)

    async def delete(self, owner: Owner, pods: Iterable[Pod]) -> str:
        """Delete Pods. Returns why not, in the API's words."""

        async def delete(pod: Pod) -> None:
            mark = f"-{pod.metadata.uid}"
            self.expectations.expect(owner.key, mark, self._context.clock())
            try:
                await self._client.delete(PODS, pod.name, pod.namespace, uid=pod.metadata.uid)
            except ApiError as error:
                self.expectations.seen(mark)
                if not (error.not_found or error.conflict):
                    raise
                return
            except BaseException:
                self.expectations.seen(mark)
                raise
            self._events.event(owner, "Normal", "SuccessfulDelete", self._deleted.format(pod=pod.name, owner=owner.name))

        pods = list(pods)
        results = await work.together([lambda pod=pod: delete(pod) for pod in pods])  # type: ignore[misc]
        return self._refusal(owner, "delete", [pod.name for pod in pods], results)

    def _refusal(self, owner: Owner, action: str, names: Sequence[str], results: Sequence[Exception | None]) -> str:
        for name, result in zip(names, results, strict=False):  # what comes after a refusal was not tried
            if isinstance(result, Exception):
                text = result.message if isinstance(result, ApiError) else str(result)
                words = self._failed.format(pod=name, owner=owner.name, error=text, action=action)
                self._events.event(owner, "Warning", f"Failed{action.capitalize()}", words)
                return text
        return ""


def _controller(pod: Pod) -> list[str]:
    owner = controller_of(pod.metadata)
    return [owner.uid] if owner is not None else []


def _orphan(pod: Pod) -> list[str]:
    return [] if controller_of(pod.metadata) is not None else [pod.namespace]
