"""The agent before kernels in memory, told of changes as by informers and taken through its rounds by hand."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from podwire.client.api import Client
from podwire.client.kubeconfig import Configuration
from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.linux.errors import KernelRefused
from podwire.nft.fake import Failing, FakeNftables
from podwire.objects.codec import convert
from podwire.objects.core import Node, Service
from podwire.objects.discovery import EndpointSlice
from podwire.services.agent import TABLES, ServiceProxy
from podwire.services.tables import Tables

PODS, SERVICES = ("10.4.0.0/14", "fd00:4::/32"), ("10.8.0.0/20", "fd00:8::/112")
CONFIG = AgentConfig(pod_ranges=PODS, service_ranges=SERVICES)
NODE = "node-1"


class Rounds:
    """``fails``, which may be replaced, says of each operation of a kernel whether it is refused. Make it within a loop."""

    def __init__(self, kernels: tuple[FakeNftables, ...] = ()) -> None:
        self.kernels = kernels or (FakeNftables(KernelRefused), FakeNftables(KernelRefused))
        self.fails: Callable[[int], bool] = lambda _: False
        self.context = Context(Client(Configuration("http://127.0.0.1:9")), CONFIG, node=NODE)
        self.proxy = proxy = ServiceProxy(self.context)
        self.context.cancel_all()  # nobody follows an API here
        doors = [Failing(kernel, self._is_to_fail, KernelRefused) for kernel in self.kernels]
        proxy.tables = [
            Tables(family, NODE, PODS[at : at + 1], SERVICES[at : at + 1], kernel=door)
            for at, (family, door) in enumerate(zip(proxy.families, doors, strict=True))
        ]
        proxy.beside._kernel = self.kernels[0]
        proxy._services.subscribe(proxy._service_changed)
        proxy._slices.subscribe(proxy._slice_changed)
        proxy._nodes.subscribe(proxy._node_changed)

    def _is_to_fail(self, operation: int) -> bool:
        return self.fails(operation)

    def service(self, name: str, tree: dict[str, Any] | None) -> None:
        """A Service of the namespace shop came or changed; without a tree it went."""
        self._tell(self.proxy._services, Service, name, tree)

    def slice(self, name: str, tree: dict[str, Any] | None) -> None:
        """A slice came or changed; without a tree it went."""
        self._tell(self.proxy._slices, EndpointSlice, name, tree)

    def node(self, zone: str) -> None:
        """The own Node is in a zone."""
        metadata = {"name": NODE, "labels": {"topology.kubernetes.io/zone": zone}}
        new = convert(Node, {"metadata": metadata})
        self.proxy._nodes._tell(self.proxy._nodes.table.put(new), new)

    def _tell(self, informer: Any, kind: type[Any], name: str, tree: dict[str, Any] | None) -> None:
        if tree is None:
            old = informer.table.delete(f"shop/{name}")
            if old is not None:
                informer._tell(old, None)
            return
        metadata = {"name": name, "namespace": "shop", **tree.get("metadata", {})}
        new = convert(kind, {**tree, "metadata": metadata})
        informer._tell(informer.table.put(new), new)

    async def round(self) -> None:
        """Let the agent work until the kernels have acknowledged."""
        for _ in range(50):
            with contextlib.suppress(KernelRefused):
                await self.proxy._operate(TABLES)
                return
        raise AssertionError("it never settles")

    def expire(self) -> None:
        for tables in self.proxy.tables:
            with contextlib.suppress(KernelRefused):
                tables.expire(tables.round)
