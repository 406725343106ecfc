"""What an API server is told when it starts: one JSON file."""

from __future__ import annotations

from pathlib import Path

import msgspec


class InvalidConfig(ValueError):
    """A configuration that cannot be read. The text names the file and the field."""


class ApiServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paths are absolute or relative to the process's folder. Ranges are CIDR texts, one for each address family, the primary one first.

    ``control_address`` and ``control_port`` are where the Service ``kubernetes`` leads; ``node_port_range`` is first and last port.
    """

    database: str
    certificate: str
    key: str
    client_ca: str
    service_ranges: tuple[str, ...] = ("10.8.0.0/20",)
    external_ranges: tuple[str, ...] = ("203.0.113.0/24",)
    internal_ranges: tuple[str, ...] = ("10.128.0.0/20",)
    node_port_range: tuple[int, int] = (30000, 32767)
    control_address: str = "10.127.0.2"
    control_port: int = 443
    cluster_name: str = "podwire"
    cluster_domain: str = "cluster.local"
    region: str = "us-central1"
    version: str = ""


def read(path: str | Path) -> ApiServerConfig:
    """Read the file. Raises InvalidConfig."""
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=ApiServerConfig)
    except (OSError, msgspec.DecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
