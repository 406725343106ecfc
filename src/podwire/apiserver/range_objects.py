"""ServiceCIDRs that are to go: each goes when no Service would be left with an address that no range holds.

Until then it is not ready: nothing is given out of it, and its condition says why it is still there. It is looked at again whenever a
ServiceCIDR or an IPAddress comes or goes.

Source: https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/#delete-a-servicecidr
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network

from podwire.apiserver import keys
from podwire.apiserver.answers import Tree, decode
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.service_addresses import ALLOCATOR, MANAGED_BY
from podwire.apiserver.kinds.service_cidr import FINALIZER, READY, held_back
from podwire.apiserver.selectors import facts
from podwire.apiserver.writing import store_as_is
from podwire.ipam.addresses import AddressPool, IPNetwork
from podwire.store import Change, Record, Unwritable

_LOOKED_AT = 500  # addresses looked at before others are served
AGAIN_S = 5.0

_LOG = logging.getLogger("podwire.apiserver")


def networks(tree: Tree) -> Iterator[IPNetwork]:
    """Give the ranges of a ServiceCIDR."""
    return (ip_network(text, strict=False) for text in tree.get("spec", {}).get("cidrs", ()))


def within(one: IPNetwork, others: Iterable[IPNetwork]) -> bool:
    """Say whether a range lies in one of the others."""
    return any(one.version == other.version and one.subnet_of(other) for other in others)  # type: ignore[arg-type]


class RangeObjects:
    """The ServiceCIDRs of a store, and those that wait for their end."""

    def __init__(self, api: Api, kind: Kind, addresses: Kind) -> None:
        self._api = api
        self._kind = kind
        self._addresses = addresses
        self.wake = asyncio.Event()
        self.wake.set()  # some may be left from before
        api.store.observe(kind.resource, self._changed)
        api.store.observe(addresses.resource, self._changed)

    def _changed(self, _change: Change) -> None:
        self.wake.set()

    async def settle(self) -> None:
        """Let go those that may, and say of the others why they may not. Raises Unwritable."""
        self.wake.clear()
        for tree in self._trees():
            name = tree["metadata"]["name"]
            if _is_waiting(tree):
                free = await self._is_free(tree)
                latest = self._latest(name)
                if latest is not None and _is_waiting(latest):
                    await self._end(latest, free=free)

    def _trees(self) -> list[Tree]:
        return [decode(record.value) for record in self._api.store.latest_range(keys.prefix(self._kind))]

    def _latest(self, name: str) -> Tree | None:
        record = self._api.store.latest(keys.key(self._kind, "", name))
        return None if record is None else decode(record.value)

    async def _is_free(self, tree: Tree) -> bool:
        """Say whether all addresses of a ServiceCIDR that Services have are held by others, too."""
        rest = [network for other in self._trees() if not other["metadata"].get("deletionTimestamp") for network in networks(other)]
        pools = [AddressPool(network) for network in networks(tree) if not within(network, rest)]
        if not pools:
            return True
        others = [AddressPool(network) for network in rest]
        records = self._api.store.latest_range(keys.prefix(self._addresses))
        for start in range(0, len(records), _LOOKED_AT):
            if start:
                await asyncio.sleep(0)
            for record in records[start : start + _LOOKED_AT]:
                if self._is_held_by(record, pools) and not self._is_held_by(record, others):
                    return False
        return True

    def _is_held_by(self, record: Record, pools: list[AddressPool]) -> bool:
        """Say whether a Service has an address of some ranges."""
        if facts(self._addresses, record).labels.get(MANAGED_BY) != ALLOCATOR:
            return False
        address = ip_address(keys.names(record.key)[1])
        return any(pool.may_give(address) for pool in pools)

    async def _end(self, tree: Tree, *, free: bool) -> None:
        metadata = tree["metadata"]
        if free:
            metadata["finalizers"] = [one for one in metadata["finalizers"] if one != FINALIZER]
            if not metadata["finalizers"]:
                del metadata["finalizers"]
        else:
            conditions = tree.setdefault("status", {}).get("conditions", [])
            known: Tree = next((one for one in conditions if one.get("type") == READY), {})
            wanted = held_back(self._api.timestamp())
            if all(known.get(key) == wanted[key] for key in ("status", "reason", "message")):
                return
            tree["status"]["conditions"] = [*(one for one in conditions if one is not known), wanted]
        await store_as_is(self._api, self._kind, tree)


def _is_waiting(tree: Tree) -> bool:
    return bool(tree["metadata"].get("deletionTimestamp")) and FINALIZER in tree["metadata"].get("finalizers", ())


async def keep(api: Api) -> None:
    """End ServiceCIDRs that are to go, for ever."""
    kind, addresses = (api.registry.find("networking.k8s.io", "v1", plural) for plural in ("servicecidrs", "ipaddresses"))
    if kind is None or addresses is None:
        return
    objects = RangeObjects(api, kind, addresses)
    while True:
        await objects.wake.wait()
        try:
            await objects.settle()
        except Unwritable as error:
            _LOG.error("a ServiceCIDR that is to go could not be written: %s", error)
            await asyncio.sleep(AGAIN_S)
            objects.wake.set()
