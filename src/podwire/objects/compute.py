"""The cloud's resources, group compute.podwire.dev/v1, cluster-scoped.

Field names and meanings follow the Compute Engine API; references between them are plain names instead of URLs.
Load-balancer controllers write them, the VPC's agent reads them, and neither knows the other.

Source: https://cloud.google.com/compute/docs/reference/rest/v1
"""

from __future__ import annotations

from podwire.objects.meta import Object, Value


class AddressSpec(Value, frozen=True):
    """``address`` may be empty in a request: the API then gives one from the range of its type."""

    address: str = ""
    address_type: str = "EXTERNAL"
    description: str = ""


class Address(Object, frozen=True):
    spec: AddressSpec = AddressSpec()


class ForwardingRuleSpec(Value, frozen=True):
    """``ports`` empty means all ports. ``target`` names a TargetPool."""

    ip_address: str = ""
    ip_protocol: str = "TCP"
    ports: tuple[int, ...] = ()
    target: str = ""
    load_balancing_scheme: str = "EXTERNAL"
    description: str = ""


class ForwardingRule(Object, frozen=True):
    spec: ForwardingRuleSpec = ForwardingRuleSpec()


class TargetPoolSpec(Value, frozen=True):
    """``instances`` are names of Instances. ``session_affinity``: NONE (5-tuple), CLIENT_IP, CLIENT_IP_PROTO."""

    instances: tuple[str, ...] = ()
    session_affinity: str = "NONE"
    description: str = ""


class TargetPool(Object, frozen=True):
    spec: TargetPoolSpec = TargetPoolSpec()


class NetworkInterface(Value, frozen=True):
    """``network_ip`` is the node IP, ``ipv6_address`` that of the second family; ``alias_ip_ranges`` are the ranges routed to the
    instance (a node's Pod ranges, each through the address of its family)."""

    network_ip: str = ""
    ipv6_address: str = ""
    alias_ip_ranges: tuple[str, ...] = ()


class InstanceSpec(Value, frozen=True):
    zone: str = ""
    network_interfaces: tuple[NetworkInterface, ...] = ()


class Instance(Object, frozen=True):
    spec: InstanceSpec = InstanceSpec()
