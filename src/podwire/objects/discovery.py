"""The group discovery.k8s.io/v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
"""

from __future__ import annotations

from podwire.objects.core import ObjectReference
from podwire.objects.meta import Object, Value

SERVICE_NAME = "kubernetes.io/service-name"


class EndpointConditions(Value, frozen=True):
    """``None`` for ready means ready, for serving means the same as ready, for terminating means no."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Value, frozen=True):
    name: str = ""


class EndpointHints(Value, frozen=True):
    for_zones: tuple[ForZone, ...] = ()
    for_nodes: tuple[ForZone, ...] = ()


class Endpoint(Value, frozen=True):
    addresses: tuple[str, ...] = ()
    conditions: EndpointConditions = EndpointConditions()
    hostname: str = ""
    node_name: str = ""
    zone: str = ""
    target_ref: ObjectReference | None = None
    hints: EndpointHints | None = None

    @property
    def ready(self) -> bool:
        return self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        return self.ready if self.conditions.serving is None else self.conditions.serving

    @property
    def terminating(self) -> bool:
        return self.conditions.terminating is True


class EndpointPort(Value, frozen=True):
    """``port`` absent means all ports, which a service proxy passes over."""

    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSlice(Object, frozen=True):
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service_key(self) -> str:
        """``namespace/name`` of the Service that the slice belongs to, ``""`` if it names none."""
        name = self.metadata.labels.get(SERVICE_NAME, "")
        return f"{self.metadata.namespace}/{name}" if name else ""
