"""Who the clients of the API are, and the user's own credentials once they are there.

Apart from credentials.py because that one needs a cryptographic library, which takes longer to load than most commands run.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass

from podwire.cluster import kubeconfig
from podwire.cluster.paths import Paths

ADMIN = "admin"
NODE_NAME_RULE = "lower-case letters, digits and '-', a letter first, at most 52: its certificate names it"


def is_node_name(name: str) -> bool:
    """Say whether a node can be called so."""
    return re.fullmatch(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", name) is not None


@dataclass(frozen=True)
class Identity:
    """A client of the API: ``name`` names its kubeconfig, ``user`` and ``groups`` are what the API sees."""

    name: str
    user: str
    groups: tuple[str, ...]


def admin_entry(paths: Paths, cluster: str, server: str) -> kubeconfig.Entry:
    """Give the user's own entry for a kubeconfig, with the API's address as seen from the machine."""
    with open(paths.kubeconfig(ADMIN), encoding="utf-8") as stream:
        tree = json.load(stream)
    user = tree["users"][0]["user"]
    ca = tree["clusters"][0]["cluster"]["certificate-authority-data"]
    pems = (base64.b64decode(text) for text in (ca, user["client-certificate-data"], user["client-key-data"]))
    return kubeconfig.Entry(f"podwire-{cluster}", server, *pems)
