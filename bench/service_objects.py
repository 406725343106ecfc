"""The Services and slices that the service proxy's benchmarks program, as decoded objects."""

from __future__ import annotations

from collections.abc import Sequence

from podwire.objects.core import ObjectReference, Service, ServicePort, ServiceSpec
from podwire.objects.discovery import SERVICE_NAME, Endpoint, EndpointPort, EndpointSlice
from podwire.objects.meta import ObjectMeta

POD_RANGES, SERVICE_RANGES = ("10.4.0.0/14", "10.64.0.0/10"), ("10.32.0.0/14",)
NODES = 100


def cluster_ip(number: int) -> str:
    return f"10.{32 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def pod_ip(number: int) -> str:
    """Addresses of Pods, from 10.64.0.1 on."""
    number += 1
    return f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def service(number: int) -> Service:
    return Service(
        metadata=ObjectMeta(name=f"service-{number}", namespace="bench", uid=f"u-{number}", resource_version="1"),
        spec=ServiceSpec(
            cluster_ip=cluster_ip(number),
            cluster_ips=(cluster_ip(number),),
            ports=(ServicePort(name="http", port=80, target_port=8080, protocol="TCP"),),
            selector={"app": f"app-{number}"},
        ),
    )


def piece(number: int, addresses: Sequence[str]) -> EndpointSlice:
    """The slice of a Service."""
    name = f"service-{number}"
    return EndpointSlice(
        metadata=ObjectMeta(name=f"{name}-x", namespace="bench", labels={SERVICE_NAME: name}, resource_version="1"),
        ports=(EndpointPort(name="http", port=8080),),
        endpoints=tuple(
            Endpoint(
                addresses=(address,),
                node_name=f"node-{hash(address) % NODES}",
                zone="a",
                target_ref=ObjectReference(kind="Pod", namespace="bench", name=f"app-{number}-{row}"),
            )
            for row, address in enumerate(addresses)
        ),
    )


def endpoints(number: int, count: int) -> list[str]:
    return [pod_ip(number * count + row) for row in range(count)]


def objects(services: int, count: int) -> tuple[list[Service], list[EndpointSlice]]:
    """Give so many Services with ``count`` endpoints each."""
    return [service(number) for number in range(services)], [piece(number, endpoints(number, count)) for number in range(services)]
