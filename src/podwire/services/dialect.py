"""What the agent asks of a node's rules, whatever words they are written in: nftables' (tables.py) or iptables' (iptables/tables.py).

What belongs here: the interface, and which of the two a configuration asks for. What must not: rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from podwire.daemon.config import AgentConfig
from podwire.linux.nftables import Nftables
from podwire.objects.discovery import EndpointSlice
from podwire.services.desired import ServiceProgram
from podwire.services.iptables.tables import IptablesTables
from podwire.services.layout import Family
from podwire.services.tables import Tables


class Dialect(Protocol):
    """One family's rules on one node.

    ``refused`` are Services that cannot be programmed, with the reason; ``sound`` says that the kernel, as far as is known, holds what is
    wanted; ``commits`` counts its transactions. ``rule_counts`` are, by table of iptables, the rules that there are, and those that the
    last round wrote; none in nftables' words.
    """

    refused: dict[str, str]
    sound: bool

    @property
    def commits(self) -> int: ...
    @property
    def has_stale(self) -> bool: ...
    @property
    def round(self) -> int: ...
    @property
    def rule_counts(self) -> Mapping[str, tuple[int, int]]: ...
    def read(self) -> None: ...
    def expect(self, wanted: Mapping[str, ServiceProgram]) -> Iterator[None]: ...
    def start(self, wanted: Mapping[str, ServiceProgram]) -> Iterator[None]: ...
    def put_slice(self, key: str, piece: EndpointSlice) -> bool: ...
    def update(self, changes: Mapping[str, ServiceProgram | None]) -> None: ...
    def expire(self, round: int) -> None: ...  # noqa: A002
    def dump(self, kernel: Nftables) -> Any: ...
    def findings(self, have: Any) -> list[str]: ...
    def distrust(self) -> None: ...
    def close(self) -> None: ...


def tables(config: AgentConfig, family: Family, node: str, namespace: int | None, node_port_ranges: tuple[str, ...]) -> Dialect:
    """Make the rules that a configuration asks for. Raises iptables.tables.ProgramMissing."""
    ranges = config.pod_ranges, config.service_ranges
    everybody = config.masquerade_all
    if config.proxy_mode == "nftables":
        return Tables(family, node, *ranges, namespace, node_port_ranges=node_port_ranges, masquerade_all=everybody)
    return IptablesTables(
        family,
        node,
        *ranges,
        namespace,
        node_port_ranges=node_port_ranges,
        masquerade_all=everybody,
        masquerade_bit=config.masquerade_bit,
    )
