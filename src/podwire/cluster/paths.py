"""Where a cluster keeps its things: names of files and sockets, nothing else.

Everything below ``root`` (the state directory) lasts; everything below ``run`` lies on a tmpfs that only the cluster's own
mount namespace sees, and goes with it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

IMAGES = "images"
"""What lies beside the clusters' folders and is shared by them."""
NAME_RULE = f"at most 40 lower-case letters, digits and '-', a letter first, and not {IMAGES!r}"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")


def is_name(text: str) -> bool:
    """Say whether a cluster can have this name. A name is one folder's, so `..` or a slash would lead elsewhere."""
    return _NAME.fullmatch(text) is not None and text != IMAGES


@dataclass(frozen=True)
class Paths:
    """``root`` is the absolute path of the state directory, ``run`` of the cluster's private tmpfs folder."""

    root: str
    run: str = "/run/podwire"

    @property
    def state(self) -> str:
        return f"{self.root}/state.json"

    @property
    def changes(self) -> str:
        return f"{self.root}/changes.json"

    @property
    def cgroups(self) -> str:
        return f"{self.root}/cgroups.json"

    @property
    def lock(self) -> str:
        return f"{self.root}/lock"

    def upgrade_lock(self, pool: str) -> str:
        return f"{self.root}/upgrade-{pool}.lock"

    @property
    def images(self) -> str:
        return f"{os.path.dirname(self.root)}/{IMAGES}"

    @property
    def control_socket(self) -> str:
        return f"{self.root}/control.sock"

    @property
    def pki(self) -> str:
        return f"{self.root}/pki"

    @property
    def database(self) -> str:
        return f"{self.root}/api.sqlite"

    @property
    def logs(self) -> str:
        return f"{self.root}/logs"

    @property
    def audit_log(self) -> str:
        return f"{self.root}/audit/audit.log"

    @property
    def init_socket(self) -> str:
        return f"{self.run}/init.sock"

    def log(self, process: str) -> str:
        return f"{self.logs}/{process.replace('/', '.')}.log"

    def config(self, process: str) -> str:
        return f"{self.root}/config/{process.replace('/', '.')}.json"

    def kubeconfig(self, identity: str) -> str:
        return f"{self.root}/kubeconfig/{identity.replace('/', '.')}"

    def kubelet(self, node: str) -> str:
        """The certificate and key of a node's kubelet, without their endings."""
        return f"{self.pki}/kubelet-{node}"

    def node(self, name: str) -> str:
        return f"{self.root}/nodes/{name}"

    def node_init_socket(self, name: str) -> str:
        return f"{self.run}/{name}/init.sock"

    def standins_socket(self, name: str) -> str:
        return f"{self.run}/{name}/standins.sock"
