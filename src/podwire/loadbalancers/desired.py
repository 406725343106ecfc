"""What load balancer a Service should have, and the steps from what is there to it.

Here: which Services are ours, names, addresses, forwarding rules, target pools, as frozen values; pure. Not here: how packets are
forwarded (``vpc``), talking to the API (controller.py).

The passthrough network load balancer of a Service is one Address, one ForwardingRule for each protocol with the Service's ports, and
one TargetPool with all Ready nodes, whether they run a matching Pod or not. All carry the same name: ``a`` and the Service's uid
without dashes, 32 characters. An Address that a person has reserved takes the place of the Service's own, and Services may share it as
long as no two of them want the same port of one protocol.

Sources: https://cloud.google.com/kubernetes-engine/docs/concepts/service-load-balancer;
https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-exclude-from-external-load-balancers
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from podwire.objects.compute import Address, AddressSpec, ForwardingRule, ForwardingRuleSpec, TargetPool, TargetPoolSpec
from podwire.objects.core import Node, Service
from podwire.objects.meta import ObjectMeta

FINALIZER: Final = "service.kubernetes.io/load-balancer-cleanup"
EXCLUDED: Final = "node.kubernetes.io/exclude-from-external-load-balancers"
TO_BE_DELETED: Final = "ToBeDeletedByClusterAutoscaler"
SERVICE_NAME: Final = "kubernetes.io/service-name"
ADDRESS_NAMES: Final = "networking.gke.io/load-balancer-ip-addresses"
OUR_CLASSES: Final = frozenset({"networking.gke.io/l4-regional-external", "networking.gke.io/l4-regional-external-legacy"})
INTERNAL_CLASSES: Final = frozenset({"networking.gke.io/l4-regional-internal", "networking.gke.io/l4-regional-internal-legacy"})
_TYPE_ANNOTATIONS: Final = ("networking.gke.io/load-balancer-type", "cloud.google.com/load-balancer-type")
_NAME_LENGTH: Final = 32


@dataclass(frozen=True)
class LoadBalancer:
    """What a Service should have. ``requested`` is the address that it asks for, "" for any; ``reserved``: it is a person's own."""

    service: str
    name: str
    requested: str
    rules: tuple[ForwardingRule, ...]
    pool: TargetPool
    reserved: bool = False

    def address(self, keep: str = "") -> Address:
        """The Address to ask for; ``keep`` is one that the Service had already."""
        spec = AddressSpec(address=self.requested or keep, description=description(self.service))
        return Address(metadata=ObjectMeta(name=self.name), spec=spec)

    def rules_at(self, address: str) -> tuple[ForwardingRule, ...]:
        """The forwarding rules, once the address is known."""
        return tuple(_at(rule, address) for rule in self.rules)


def _at(rule: ForwardingRule, address: str) -> ForwardingRule:
    spec = rule.spec
    moved = ForwardingRuleSpec(
        ip_address=address, ip_protocol=spec.ip_protocol, ports=spec.ports, target=spec.target, description=spec.description
    )
    return ForwardingRule(metadata=rule.metadata, spec=moved)


def is_internal(service: Service) -> bool:
    """Say whether the Service asks for an internal load balancer, which is not offered yet. A class wins over the annotation."""
    if service.spec.type != "LoadBalancer":
        return False
    if service.spec.load_balancer_class:
        return service.spec.load_balancer_class in INTERNAL_CLASSES
    found = next((service.metadata.annotations[key] for key in _TYPE_ANNOTATIONS if key in service.metadata.annotations), "")
    return found.lower() == "internal"


def is_ours(service: Service) -> bool:
    """Say whether the Service should have an external load balancer of ours. One with somebody else's class is left alone."""
    if service.spec.type != "LoadBalancer" or service.metadata.deletion_timestamp is not None or is_internal(service):
        return False
    return not service.spec.load_balancer_class or service.spec.load_balancer_class in OUR_CLASSES


def load_balancer_name(service: Service) -> str:
    """``a`` and the uid without dashes, 32 characters."""
    return ("a" + service.metadata.uid.replace("-", ""))[:_NAME_LENGTH]


def description(key: str) -> str:
    """How a resource names the Service that it belongs to."""
    return json.dumps({SERVICE_NAME: key}, separators=(",", ":"))


def service_of(text: str) -> str:
    """Read the Service's ``namespace/name`` out of a description; "" if it is none of ours."""
    try:
        found = json.loads(text)
    except ValueError:
        return ""
    name = found.get(SERVICE_NAME, "") if isinstance(found, dict) else ""
    return name if isinstance(name, str) else ""


def takes_traffic(node: Node) -> bool:
    """Say whether load balancers send to the node: Ready, not excluded by label, not about to be deleted."""
    return (
        node.ready
        and EXCLUDED not in node.metadata.labels
        and node.metadata.deletion_timestamp is None
        and all(taint.key != TO_BE_DELETED for taint in node.spec.taints)
    )


class NotReserved(LookupError):
    """A Service names an Address that is not there, or has no address yet."""


def reserved_name(service: Service) -> str:
    """The name of the reserved Address that a Service asks for; "" if it names none. Of several, the first."""
    return service.metadata.annotations.get(ADDRESS_NAMES, "").split(",")[0].strip()


def wants(service: Service, address: Address) -> bool:
    """Say whether a Service asks for an Address, by its name or by what it is."""
    named = reserved_name(service)
    return address.name == named if named else address.spec.address == service.spec.load_balancer_ip != ""


def _reserved(service: Service, addresses: Iterable[Address]) -> Address | None:
    found = next((one for one in addresses if not service_of(one.spec.description) and wants(service, one)), None)
    named = reserved_name(service)
    if named and (found is None or not found.spec.address):
        raise NotReserved(f'the Address "{named}" is not reserved')
    return found


def desired(service: Service, nodes: Iterable[Node], addresses: Iterable[Address] = ()) -> LoadBalancer | None:
    """Give the load balancer of a Service; None if it should have none from us. Raises NotReserved."""
    if not is_ours(service):
        return None
    reserved = _reserved(service, addresses)
    name, note = load_balancer_name(service), description(service.key)
    ports: dict[str, list[int]] = {}
    for port in service.spec.ports:
        ports.setdefault(port.protocol, []).append(port.port)
    affinity = "CLIENT_IP" if service.spec.session_affinity == "ClientIP" else "NONE"
    instances = tuple(sorted(node.name for node in nodes if takes_traffic(node)))
    rules = tuple(
        ForwardingRule(
            # One protocol is the rule; a second one needs a name of its own.
            metadata=ObjectMeta(name=name if index == 0 else f"{name}-{protocol.lower()}"),
            spec=ForwardingRuleSpec(ip_protocol=protocol, ports=tuple(sorted(set(numbers))), target=name, description=note),
        )
        for index, (protocol, numbers) in enumerate(ports.items())
    )
    pool = TargetPool(metadata=ObjectMeta(name=name), spec=TargetPoolSpec(instances=instances, session_affinity=affinity, description=note))
    requested = reserved.spec.address if reserved is not None else service.spec.load_balancer_ip
    return LoadBalancer(service.key, name, requested, rules, pool, reserved is not None)


# From what is there to what is wanted --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Existing:
    """The resources that name a Service, by name."""

    addresses: Mapping[str, Address]
    rules: Mapping[str, ForwardingRule]
    pools: Mapping[str, TargetPool]

    def __bool__(self) -> bool:
        return bool(self.addresses or self.rules or self.pools)


@dataclass(frozen=True)
class Create:
    value: Address | ForwardingRule | TargetPool


@dataclass(frozen=True)
class Replace:
    """Give a resource another ``spec``."""

    value: ForwardingRule | TargetPool


@dataclass(frozen=True)
class Delete:
    value: Address | ForwardingRule | TargetPool


Action = Create | Replace | Delete


def address_actions(have: Existing, want: LoadBalancer, keep: str) -> list[Action]:
    """What is to be done before the address is known: one that is there stays, unless the Service asks for another."""
    there = have.addresses.get(want.name)
    if want.reserved:
        return [] if there is None else [*(Delete(rule) for rule in have.rules.values()), Delete(there)]
    if there is None:
        return [Create(want.address(keep))]
    if want.requested and there.spec.address != want.requested:
        return [*(Delete(rule) for rule in have.rules.values()), Delete(there), Create(want.address())]
    return []


def actions(have: Existing, want: LoadBalancer, address: str) -> list[Action]:
    """What is to be done once the address is known: what is pointed to first, what is no longer wanted last."""
    found: list[Action] = []
    pool = have.pools.get(want.pool.name)
    if pool is None:
        found.append(Create(want.pool))
    elif pool.spec != want.pool.spec:
        found.append(Replace(want.pool))
    rules = {rule.name: rule for rule in want.rules_at(address)}
    for name, rule in rules.items():
        if name not in have.rules:
            found.append(Create(rule))
        elif _moves(have.rules[name].spec, rule.spec):  # what names a rule in the cloud cannot change
            found += [Delete(have.rules[name]), Create(rule)]
        elif have.rules[name].spec != rule.spec:
            found.append(Replace(rule))
    found += [Delete(rule) for name, rule in have.rules.items() if name not in rules]
    return found


def _moves(before: ForwardingRuleSpec, after: ForwardingRuleSpec) -> bool:
    return (before.ip_address, before.ip_protocol) != (after.ip_address, after.ip_protocol)


def conflict(rule: ForwardingRule, others: Iterable[ForwardingRule]) -> str:
    """Say, as the cloud does, why a rule cannot be made beside those that are there; "" if it can."""
    spec = rule.spec
    for other in others:
        same = (other.spec.ip_address, other.spec.ip_protocol) == (spec.ip_address, spec.ip_protocol)
        if same and other.name != rule.name and (not (other.spec.ports and spec.ports) or set(other.spec.ports) & set(spec.ports)):
            words = (
                f"Invalid value for field 'resource.IPAddress': '{spec.ip_address}'. Specified IP address is in-use and would result in a"
            )
            return f"failed to create forwarding rule for load balancer ({rule.name}): {words} conflict., invalid"
    return ""


def removal(have: Existing) -> list[Action]:
    """What takes a load balancer away: the rules first, the address last."""
    return [*map(Delete, have.rules.values()), *map(Delete, have.pools.values()), *map(Delete, have.addresses.values())]
