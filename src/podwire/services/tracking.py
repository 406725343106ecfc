"""Settings of connection tracking that a node's service proxy is asked for.

What belongs here: from configuration to the kernel's settings, and writing those that differ. What must not: who is told of a refusal
(beside.py). How many flows there may be is the machine's own setting: in another network namespace the kernel refuses it.

Source: https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/#kubeproxy-config-k8s-io-v1alpha1-KubeProxyConntrackConfiguration;
Documentation/networking/nf_conntrack-sysctl.rst of the Linux kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

from podwire.daemon.config import Conntrack
from podwire.linux import sysctl
from podwire.linux.errors import KernelRefused

_PREFIX = "net.netfilter.nf_conntrack_"


def wanted(settings: Conntrack, cores: int) -> dict[str, str]:
    """Give the kernel's settings by name. What is None or 0 stays as it is."""
    values = {
        "max": max((settings.max_per_core or 0) * cores, settings.min or 0) if settings.max_per_core else 0,
        "tcp_timeout_established": settings.tcp_established_s,
        "tcp_timeout_close_wait": settings.tcp_close_wait_s,
        "tcp_be_liberal": int(settings.tcp_be_liberal),
        "udp_timeout": settings.udp_s,
        "udp_timeout_stream": settings.udp_stream_s,
    }
    return {_PREFIX + name: str(value) for name, value in values.items() if value}


def write(settings: Mapping[str, str], namespace: int | None = None) -> list[str]:
    """Write those that differ. Gives those that were refused, in words: as the others are written nevertheless."""
    refused: list[str] = []
    for key, value in settings.items():
        try:
            if sysctl.read(key, namespace) != value:
                sysctl.write_all({key: value}, namespace)
        except (KernelRefused, OSError) as error:
            refused.append(str(error))
    return refused
