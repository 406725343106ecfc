"""What containers and Pods ask for and may use, as limits of cgroups. Pure.

Processor time is a share that follows from the request (of the limit, where nothing is requested), and at most the limit. Memory is
limited, and what is requested of it is for the scheduler alone. A Pod is limited as a whole where every container of it is.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#how-pods-with-resource-limits-are-run
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from podwire.linux.cgroups import Limits
from podwire.objects.core import Container, Pod, ResourceRequirements
from podwire.views.resources import amounts, requested

SHARES: Final = 1024
"""Of one processor."""
_LEAST: Final = 2


def of_container(container: Container) -> Limits:
    """The limits of one container."""
    return _limits(container.resources)


def of_pod(pod: Pod, processes: int | None = None) -> Limits:
    """The limits of a Pod. ``processes``: how many each Pod may have."""
    if pod.spec.resources is not None and (pod.spec.resources.limits or pod.spec.resources.requests):
        own = _limits(pod.spec.resources)
        return Limits(own.memory, own.cores, own.shares, processes)
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    limits = [amounts(one.resources.limits) for one in containers]
    whole = requested(_as_limits(pod))
    memory = whole["memory"] // 1000 if all("memory" in one for one in limits) and whole.get("memory") else None
    cores = whole["cpu"] / 1000 if all("cpu" in one for one in limits) and whole.get("cpu") else None
    return Limits(memory, cores, _shares(requested(pod).get("cpu", 0)), processes)


def _as_limits(pod: Pod) -> Pod:
    """The Pod as if its limits were what it asks for: they add up in the same way."""

    def exchanged(container: Container) -> Container:
        return msgspec.structs.replace(container, resources=ResourceRequirements(requests=container.resources.limits))

    spec = pod.spec
    return msgspec.structs.replace(
        pod,
        spec=msgspec.structs.replace(
            spec,
            init_containers=tuple(map(exchanged, spec.init_containers)),
            containers=tuple(map(exchanged, spec.containers)),
            resources=None,
        ),
    )


def _limits(said: ResourceRequirements) -> Limits:
    limits, requests = amounts(said.limits), amounts(said.requests)
    return Limits(
        memory=limits["memory"] // 1000 if limits.get("memory") else None,
        cores=limits["cpu"] / 1000 if limits.get("cpu") else None,
        shares=_shares(_asked(requests, limits)),
    )


def _asked(requests: Mapping[str, int], limits: Mapping[str, int]) -> int:
    return requests["cpu"] if "cpu" in requests else limits.get("cpu", 0)


def _shares(thousandths: int) -> int:
    return max(_LEAST, thousandths * SHARES // 1000)
