"""What the API gives out: addresses and ports of Services, external addresses of the cloud.

The stored objects are the truth; the pools are made of them at start (``load``), so nothing is given twice after a crash. A write asks
with ``begin``, which fills the object in; then exactly one of the grant's ``commit`` (the object is stored) and ``abandon`` (it is not)
runs, before anyone else asks. What is no longer needed is given back by ``commit``, never before.

Here: which kinds take from the pools. Not here: the pools (``pools.py``), the rules for Services (``allocation_services.py``), the store.

Source: https://kubernetes.io/docs/concepts/services-networking/cluster-ip-allocation/
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import ip_address, ip_network
from random import Random

from podwire.apiserver.allocation_services import change_service, new_service, release_service
from podwire.apiserver.kind import Kind, Tree
from podwire.apiserver.kinds.service_addresses import ALLOCATOR, MANAGED_BY
from podwire.apiserver.kinds.service_cidr import is_ready
from podwire.apiserver.pools import Grant, Pools, Ranges
from podwire.apiserver.validation import Path, internal, invalid
from podwire.ipam.addresses import Unavailable

__all__ = ["Allocator", "Grant", "Ranges"]


class Allocator:
    """The one place where addresses and ports are given out. Used by one writer at a time."""

    def __init__(self, ranges: Ranges, random: Random) -> None:
        self.pools = Pools(ranges, random)
        self._reserved: set[str] = set()  # Service addresses that an IPAddress holds which no Service has

    def load(self, kind: Kind, tree: Tree) -> list[str]:
        """Take what a stored object has. Gives what is wrong with it (out of range, held twice), for the log: the object stays as it is."""
        grant = Grant()
        problems: list[str] = []
        if kind.kind == "ServiceCIDR":
            self._range(tree)
            return []
        if kind.kind == "IPAddress":
            if tree["metadata"].get("labels", {}).get(MANAGED_BY) != ALLOCATOR:
                self._reserve(tree, grant)
            return [f"{kind.kind} {error}" for error in grant.errors]
        for take in _held(self.pools, kind, tree, grant):
            try:
                take()
            except Unavailable as error:
                meta = tree["metadata"]
                name = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
                problems.append(f"{kind.kind} {name}: {error}")
        return problems

    def begin(self, kind: Kind, tree: Tree, old: Tree | None) -> Grant:
        """Fill a new (``old`` is ``None``) or changed object with what it needs. Kinds that need nothing get an empty grant."""
        grant = Grant()
        if kind.kind == "Service" and not kind.group:
            if old is None:
                new_service(self.pools, tree, grant)
            else:
                change_service(self.pools, tree, old, grant)
        elif kind.kind == "Address" and kind.group == "compute.podwire.dev" and old is None:
            self._new_address(tree, grant)
        elif kind.kind == "IPAddress" and old is None:
            self._reserve(tree, grant)
        return grant

    def release(self, kind: Kind, tree: Tree) -> None:
        """Give back all that an object had: it is gone."""
        grant = Grant()
        if kind.kind == "Service" and not kind.group:
            release_service(self.pools, tree, grant)
        elif kind.kind == "Address" and kind.group == "compute.podwire.dev" and (address := tree.get("spec", {}).get("address")):
            self.pools.release_external_address(address, grant)
        elif kind.kind == "IPAddress" and (text := tree["metadata"]["name"]) in self._reserved:
            self._reserved.discard(text)
            self.pools.release_service_address(text, grant)
        grant.commit()

    def follow(self, kind: Kind, before: Tree | None, after: Tree | None) -> None:
        """Learn that an object was stored or is gone: what it gives others, or what it held."""
        if kind.kind == "ServiceCIDR":
            if after is not None:
                self._range(after)
            elif before is not None:
                self.pools.put_service_range(before["metadata"]["name"], (), ready=False)
        elif after is None and before is not None:
            self.release(kind, before)

    def _range(self, tree: Tree) -> None:
        networks = [ip_network(text) for text in tree.get("spec", {}).get("cidrs", ())]
        self.pools.put_service_range(tree["metadata"]["name"], networks, ready=is_ready(tree))

    def _reserve(self, tree: Tree, grant: Grant) -> None:
        """An IPAddress that somebody makes keeps its address from Services, also from those of ranges that are still to come."""
        text = tree["metadata"].get("name", "")
        try:
            address = ip_address(text)
        except ValueError:
            return  # validation says so
        try:
            self.pools.keep_service_address(address, grant)
        except Unavailable as error:
            grant.errors.append(invalid(Path("metadata") / "name", text, str(error)))
            return
        self._reserved.add(text)
        grant.taken.append(partial(self._reserved.discard, text))

    def _new_address(self, tree: Tree, grant: Grant) -> None:
        spec = tree.setdefault("spec", {})
        wanted, path = spec.get("address", ""), Path("spec") / "address"
        try:
            spec["address"] = self.pools.external_address(wanted, grant)
        except Unavailable as error:
            grant.errors.append(invalid(path, wanted, str(error)) if wanted else internal(path, f"failed to allocate an address: {error}"))
        except ValueError:
            grant.errors.append(invalid(path, wanted, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"))


def _held(pools: Pools, kind: Kind, tree: Tree, grant: Grant) -> list[Callable[[], object]]:
    """List the takings that stand for what a stored object has."""
    spec = tree.get("spec", {})
    takings: list[Callable[[], object]] = []
    if kind.kind == "Address" and kind.group == "compute.podwire.dev":
        if address := spec.get("address"):
            takings.append(partial(pools.external_address, address, grant))
        return takings
    if kind.kind != "Service" or kind.group:
        return takings
    addresses = [text for text in spec.get("clusterIPs", ()) if text and text != "None"]
    takings += [partial(pools.service_address, f"IPv{ip_address(text).version}", text, grant) for text in addresses]
    ports = {port["nodePort"] for port in spec.get("ports", ()) if port.get("nodePort")} | {spec.get("healthCheckNodePort", 0)}
    takings += [partial(pools.node_port, port, grant) for port in sorted(ports - {0})]
    return takings
