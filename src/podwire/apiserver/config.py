"""What an API server is told when it starts: one JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from podwire.apiserver.version import KUBERNETES_VERSION
from podwire.objects.meta import kubernetes_name


class InvalidConfig(ValueError):
    """A configuration that cannot be read. The text names the file and the field."""


class ApiServerConfig(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename=lambda field: "clientCA" if field == "client_ca" else kubernetes_name(field),
):
    """Ranges are CIDR texts. ``version``: what ``/version`` says instead of the version of the schemas.

    ``service_ranges`` are one, or one of each family, the primary first. ``control_address`` and ``control_port`` are where the Service
    ``kubernetes`` leads; ``node_port_range`` is first and last port; the first address of ``external_range`` is Cloud NAT's.
    ``kubelet_certificate``, ``kubelet_key``: what the server shows to kubelets; without them it reaches none.
    ``service_account_key``: the private key that signs tokens, PEM; without it tokens end with the process.
    ``audit_log`` is the file that holds the record of requests, ``""`` for none.
    """

    database: str
    certificate: str
    key: str
    client_ca: str
    service_account_key: str = ""
    audit_log: str = ""
    audit_level: Literal["Metadata", "Request", "RequestResponse"] = "Metadata"
    kubelet_certificate: str = ""
    kubelet_key: str = ""
    service_ranges: tuple[str, ...] = ("10.8.0.0/20",)
    external_range: str = "203.0.113.0/24"
    node_port_range: tuple[int, int] = (30000, 32767)
    control_address: str = "10.127.0.2"
    control_port: int = 443
    cluster_name: str = "podwire"
    region: str = "us-central1"
    version: str = KUBERNETES_VERSION


def read(path: str | Path) -> ApiServerConfig:
    """Read the file. Raises InvalidConfig."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=ApiServerConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
