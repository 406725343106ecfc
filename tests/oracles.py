"""Programs of the machine that tests compare with: nft, ip, tcpdump. Never needed at run time.

Where one is missing its comparison is skipped, but for CI, where nothing is.
"""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "ctr": "containerd",
    "podman": "podman",
    "crun": "crun",
    "conmon": "conmon",
    "runc": "runc",
    "containerd": "containerd",
    "busybox": "busybox-static",
    "nft": "nftables",
    "ip": "iproute2",
    "tcpdump": "tcpdump",
    "dig": "bind9-dnsutils",
    "curl": "curl",
}


def program(name: str) -> str:
    """Give the path of a program; skip the calling test where there is none, fail it in CI."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        message = f"{name} is not installed: apt-get install {PACKAGES.get(name, name)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
