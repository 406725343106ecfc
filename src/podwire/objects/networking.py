"""The group networking.k8s.io/v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/networking-resources/service-cidr-v1/
"""

from __future__ import annotations

from podwire.objects.meta import Object, Value


class ServiceCIDRSpec(Value, frozen=True):
    """Ranges that Services get their addresses from: one, or one of each family."""

    cidrs: tuple[str, ...] = ()


class ServiceCIDR(Object, frozen=True):
    spec: ServiceCIDRSpec = ServiceCIDRSpec()
