"""The load-balancer controller: follows Services and Nodes, writes Compute resources, and tells the Service its address.

One Service is one key. The work on a key reads what is wanted and what is there from the informers' tables, lets desired.py decide,
and performs it. A finalizer keeps a Service until its resources are gone. Retrying is ``lib.reconcile``'s.

Source: https://kubernetes.io/docs/concepts/services-networking/service/#loadbalancer
"""

from __future__ import annotations

import random
from typing import Any, Final

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.lib.reconcile import Reconciler
from podwire.loadbalancers import desired
from podwire.loadbalancers.desired import Action, Create, Delete, Existing, LoadBalancer, Replace
from podwire.objects import codec, resources
from podwire.objects.compute import Address, ForwardingRule, TargetPool
from podwire.objects.core import Node, Service
from podwire.objects.meta import Object
from podwire.objects.resources import Resource

COMPONENT: Final = "service-controller"
_OWNER: Final = "owner"

Owned = Address | ForwardingRule | TargetPool


async def run(context: Context) -> None:
    """The agent ``loadbalancers``."""
    await Controller(context).run()


class Controller:
    """Keeps a load balancer for each Service of type LoadBalancer."""

    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder(COMPONENT)
        self._services = context.informer(resources.SERVICES)
        self._nodes = context.informer(resources.NODES)
        owner = {_OWNER: _owner}
        self._addresses = context.informer(resources.ADDRESSES, indexes=owner)
        self._rules = context.informer(resources.FORWARDING_RULES, indexes=owner)
        self._pools = context.informer(resources.TARGET_POOLS, indexes=owner)
        self._reconciler = Reconciler(
            self._operate, concurrency=8, random=random.random, clock=context.clock, on_failure=self._failed, keep_done=False
        )
        self._told: dict[str, str] = {}  # Service's uid -> the address in the status that this process wrote
        self._internal: set[str] = set()  # uids of which an Event has said that they are not served
        self._written: dict[str, Owned] = {}  # what this process wrote and the informers may not have seen yet

    async def run(self) -> None:
        informers = (self._services, self._nodes, self._addresses, self._rules, self._pools)
        for informer in informers:
            await informer.synced.wait()
        self._services.subscribe(self._service_changed)
        self._nodes.subscribe(self._node_changed)
        for owned in (self._addresses, self._rules, self._pools):
            owned.subscribe(self._owned_changed)
        self._context.ready("loadbalancers")
        await self._reconciler.run()

    # What wakes it

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        if service is not None and (service.spec.type == "LoadBalancer" or desired.FINALIZER in service.metadata.finalizers):
            self._reconciler.mark(service.key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if (old is not None and desired.takes_traffic(old)) == (new is not None and desired.takes_traffic(new)):
            return
        for service in self._services.table.snapshot():
            if desired.is_ours(service):
                self._reconciler.mark(service.key)

    def _owned_changed(self, old: Owned | None, new: Owned | None) -> None:
        for value in (old, new):
            if value is not None:
                self._written.pop(_identity(value), None)
                for key in _owner(value):
                    self._reconciler.mark(key)
        if any(isinstance(value, Address) and not _owner(value) for value in (old, new)):
            self._reserved_changed(old, new)

    def _reserved_changed(self, *addresses: Owned | None) -> None:
        """An Address of a person's own came, or went."""
        for service in self._services.table.snapshot():
            if desired.is_ours(service) and any(isinstance(one, Address) and desired.wants(service, one) for one in addresses):
                self._reconciler.mark(service.key)

    def _failed(self, key: str, error: Exception, attempts: int) -> None:
        if isinstance(error, ApiError) and error.conflict:
            return  # somebody else wrote first; it is decided anew
        self._context.log.warning("load balancer of %s: %s", key, error)
        service = self._services.table.snapshot().get(key)
        if service is not None and attempts == 1:
            self._events.event(service, "Warning", "SyncLoadBalancerFailed", f"Error syncing load balancer: {error}")

    # What it does

    async def _operate(self, key: str) -> None:
        service = self._services.table.snapshot().get(key)
        nodes, addresses = self._nodes.table.snapshot(), self._addresses.table.snapshot()
        want = desired.desired(service, nodes, addresses) if service is not None else None
        if service is not None and desired.is_internal(service):
            self._say_internal(service)
        if want is None or service is None:
            await self._remove(key, service)
        else:
            await self._ensure(service, want)

    def _say_internal(self, service: Service) -> None:
        if service.metadata.uid not in self._internal and service.metadata.deletion_timestamp is None:
            self._internal.add(service.metadata.uid)
            message = "Internal load balancers are not offered yet; the Service keeps its cluster IP and node ports"
            self._events.event(service, "Warning", "UnsupportedLoadBalancerType", message)

    def _existing(self, key: str) -> Existing:
        """What is there for a Service: as the informers know it, and what was written since."""
        addresses = {a.name: a for a in self._addresses.table.snapshot().by(_OWNER, key)}
        rules = {r.name: r for r in self._rules.table.snapshot().by(_OWNER, key)}
        pools = {p.name: p for p in self._pools.table.snapshot().by(_OWNER, key)}
        for value in self._written.values():
            if key in _owner(value):
                if isinstance(value, Address):
                    addresses.setdefault(value.name, value)
                elif isinstance(value, ForwardingRule):
                    rules.setdefault(value.name, value)
                else:
                    pools.setdefault(value.name, value)
        return Existing(addresses, rules, pools)

    async def _ensure(self, service: Service, want: LoadBalancer) -> None:
        have = self._existing(service.key)
        current = next((ingress.ip for ingress in service.status.load_balancer.ingress), "")
        first = desired.FINALIZER not in service.metadata.finalizers
        if first:
            self._events.event(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
            await self._patch_finalizers(service, (*service.metadata.finalizers, desired.FINALIZER))
        held = have.addresses.get(want.name)
        others = any(one.spec.address == current and not _owner(one) for one in self._addresses.table.snapshot())
        for action in desired.address_actions(have, want, "" if others else current):
            done = await self._perform(action)
            held = done if isinstance(done, Address) else held
        have = self._existing(service.key)
        address = want.requested if want.reserved else held.spec.address if held is not None else ""
        if not address:
            raise LookupError(f"the Address {want.name} has no address yet")
        for action in desired.actions(have, want, address):
            if isinstance(action, Create | Replace) and isinstance(action.value, ForwardingRule):
                self._check_free(action.value)
            await self._perform(action)
        known = self._told.get(service.metadata.uid, current)
        if known != address or (current and len(service.status.load_balancer.ingress) != 1):
            self._told[service.metadata.uid] = address
            ingress = [{"ip": address, "ipMode": "VIP"}]
            await self._patch_status(service, ingress)
            self._events.event(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")

    def _check_free(self, rule: ForwardingRule) -> None:
        """Raises LookupError for a rule that another one is in the way of."""
        there = {one.name: one for one in self._rules.table.snapshot()}
        there |= {one.name: one for one in self._written.values() if isinstance(one, ForwardingRule)}
        if words := desired.conflict(rule, there.values()):
            raise LookupError(words)

    async def _remove(self, key: str, service: Service | None) -> None:
        ours = service is not None and desired.FINALIZER in service.metadata.finalizers
        have = self._existing(key)
        if service is not None and ours and have:
            self._events.event(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer")
        for action in desired.removal(have):
            await self._perform(action)
        if service is None or not ours:
            return
        self._told.pop(service.metadata.uid, None)
        if service.status.load_balancer.ingress and service.metadata.deletion_timestamp is None:
            await self._patch_status(service, None)
        await self._patch_finalizers(service, tuple(name for name in service.metadata.finalizers if name != desired.FINALIZER))
        self._events.event(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer")

    async def _perform(self, action: Action) -> Owned | None:
        resource: Resource[Any] = _resource(action.value)
        match action:
            case Create(value):
                try:
                    made = await self._client.create(resource, value)
                except ApiError as error:
                    if not error.already_exists:
                        raise
                    made = await self._client.get(resource, value.name)
                self._written[_identity(made)] = made
                return made  # type: ignore[no-any-return]
            case Replace(value):
                spec = codec.tree(value)["spec"]
                empty = {name: None for name in ("instances", "sessionAffinity", "ports") if name not in spec}
                return await self._client.patch(resource, value.name, "", {"spec": {**empty, **spec}})  # type: ignore[no-any-return]
            case Delete(value):
                self._written.pop(_identity(value), None)
                try:
                    await self._client.delete(resource, value.name)
                except ApiError as error:
                    if not error.not_found:
                        raise
        return None

    async def _patch_finalizers(self, service: Service, finalizers: tuple[str, ...]) -> None:
        meta = {"finalizers": list(finalizers), "resourceVersion": service.metadata.resource_version, "uid": service.metadata.uid}
        try:
            await self._client.patch(resources.SERVICES, service.name, service.namespace, {"metadata": meta})
        except ApiError as error:
            if not error.not_found:
                raise

    async def _patch_status(self, service: Service, ingress: list[dict[str, str]] | None) -> None:
        patch = {"status": {"loadBalancer": {"ingress": ingress}}}
        await self._client.patch(resources.SERVICES, service.name, service.namespace, patch, subresource="status")


def _owner(value: Owned) -> tuple[str, ...]:
    name = desired.service_of(value.spec.description)
    return (name,) if name else ()


def _identity(value: Object) -> str:
    return f"{type(value).__name__}/{value.name}"


def _resource(value: Owned) -> Resource[Any]:
    if isinstance(value, Address):
        return resources.ADDRESSES
    return resources.FORWARDING_RULES if isinstance(value, ForwardingRule) else resources.TARGET_POOLS
