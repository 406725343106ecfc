"""What nodes and Pods use (metrics.k8s.io): kubelets are asked when somebody asks here, and their answers are kept for a moment.

A node that does not answer has no metrics, nor have its Pods: the others are told all the same, as with metrics-server.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from podwire.apiserver import keys, reading, shapes, status
from podwire.apiserver.answers import Answer, Stream, Tree, decode, encode
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.metrics import GROUP, KINDS, NODE_METRICS, POD_METRICS, VERSION
from podwire.apiserver.requests import Request, Target
from podwire.apiserver.streaming import kubelet
from podwire.apiserver.streaming.exchanges import UNREACHABLE, request
from podwire.apiserver.streaming.upstream import Upstream
from podwire.store import Record

FRESH_S = 5.0
"""For how long a node's answer is told again."""
_AT_ONCE, _PATIENCE_S = 16, 5.0


def takes(target: Target) -> bool:
    """Whether this module answers to requests for it."""
    return target.group == GROUP and target.version == VERSION and target.plural in ("nodes", "pods")


class ResourceMetrics:
    """``clock``: monotonic seconds."""

    def __init__(self, api: Api, upstream: Upstream, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._upstream, self._clock = api, upstream, clock
        self._kept: dict[str, tuple[float, Tree]] = {}
        self._asked: dict[str, asyncio.Task[Tree | None]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)

    async def answer(self, asked: Request, verb: str) -> Answer | Stream:
        """Answer to a request that its user may make. Raises Failure."""
        target = asked.target
        kind = next(one for one in KINDS if one.plural == target.plural)
        if target.subresource or (target.namespace and not kind.namespaced) or (target.name and kind.namespaced and not target.namespace):
            raise status.no_such_path()
        if verb not in kind.verbs:
            raise status.method_not_allowed()
        if target.name:
            made = await self._of(kind, self._one(asked, kind))
            if not made:
                raise status.not_found(kind, f"{target.namespace}/{target.name}" if kind.namespaced else target.name)
            return shapes.one(self._api, asked, kind, encode(made[0]))
        found = await self._of(kind, self._chosen(asked, kind))
        records = [Record(keys.key(kind, one["metadata"].get("namespace", ""), one["metadata"]["name"]), 0, encode(one)) for one in found]
        return shapes.many(self._api, asked, kind, records, {})

    def _row(self, kind: Kind) -> Kind:
        return kubelet.kind(self._api, kind.plural)

    def _one(self, asked: Request, kind: Kind) -> list[Tree]:
        record = self._api.store.get(keys.key(self._row(kind), asked.target.namespace, asked.target.name))
        return [] if record is None else [decode(record.value)]

    def _chosen(self, asked: Request, kind: Kind) -> list[Tree]:
        row = self._row(kind)
        chosen = reading.select(asked, row)
        records = self._api.store.range(keys.prefix(row, asked.target.namespace))
        return [decode(record.value) for record in records if not chosen or chosen(record)]

    async def _of(self, kind: Kind, trees: list[Tree]) -> list[Tree]:
        if kind is NODE_METRICS:
            told = await self._tell(tree["metadata"]["name"] for tree in trees)
            return [_node(tree, told[tree["metadata"]["name"]]) for tree in trees if tree["metadata"]["name"] in told]
        running = [tree for tree in trees if tree.get("status", {}).get("phase") == "Running"]
        told = await self._tell(tree["spec"].get("nodeName", "") for tree in running)
        made = [_pod(tree, told[tree["spec"]["nodeName"]]) for tree in running if tree["spec"].get("nodeName", "") in told]
        return [one for one in made if one is not None]

    # Asking ------------------------------------------------------------------------------------------------------------------

    async def _tell(self, nodes: Iterable[str]) -> dict[str, Tree]:
        names = sorted({name for name in nodes if name})
        answers = await asyncio.gather(*(self._told(name) for name in names))
        return {name: told for name, told in zip(names, answers, strict=True) if told is not None}

    async def _told(self, node: str) -> Tree | None:
        kept = self._kept.get(node)
        if kept is not None and kept[0] + FRESH_S > self._clock():
            return kept[1]
        if node not in self._asked:  # who asks at the same time waits for the same answer
            task = self._asked[node] = asyncio.create_task(self._ask(node))
            task.add_done_callback(lambda _task: self._asked.pop(node, None))
        return await asyncio.shield(self._asked[node])

    async def _ask(self, node: str) -> Tree | None:
        try:
            async with self._gate, asyncio.timeout(_PATIENCE_S):
                endpoint = kubelet.locate(self._api, self._upstream, node)
                response = await request(self._upstream, endpoint, "GET", "/stats/usage", [(b"accept", b"application/json")])
                async with response:
                    if response.status != 200:
                        return None
                    told: Tree = orjson.loads(await response.read())
        except (*UNREACHABLE, status.Failure, orjson.JSONDecodeError):
            self._kept.pop(node, None)
            return None
        self._kept[node] = self._clock(), told
        return told


def _usage(one: Tree) -> Tree:
    return {"cpu": f"{one['nanoCores']}n", "memory": f"{one['bytes'] >> 10}Ki"}


def _head(kind: Kind, tree: Tree, told: Tree) -> Tree:
    kept = {key: tree["metadata"][key] for key in ("name", "namespace", "labels") if key in tree["metadata"]}
    return {
        "kind": kind.kind,
        "apiVersion": kind.api_version,
        "metadata": {**kept, "creationTimestamp": told["timestamp"]},
        "timestamp": told["timestamp"],
        "window": f"{told['windowSeconds']:.3f}s",
    }


def _node(tree: Tree, told: Tree) -> Tree:
    return {**_head(NODE_METRICS, tree, told), "usage": _usage(told["node"])}


def _pod(tree: Tree, told: Tree) -> Tree | None:
    """None: its node has not measured it yet, or not all of its containers."""
    uid = tree["metadata"]["uid"]
    found: dict[str, Any] = told["containers"]
    names = [one["name"] for one in tree["spec"]["containers"]]
    names += [one["name"] for one in tree["spec"].get("initContainers", ()) if one.get("restartPolicy") == "Always"]
    if any(f"{uid}/{name}" not in found for name in names):
        return None
    containers = [{"name": name, "usage": _usage(found[f"{uid}/{name}"])} for name in names]
    return {**_head(POD_METRICS, tree, told), "containers": containers}
