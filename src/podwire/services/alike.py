"""How much of a Service stayed the same between two states of it.

What belongs here: comparisons that spare work, since most changes are of one endpoint. What must not: elements, numbers, what is done
about a difference (ruleset.py).
"""

from __future__ import annotations

from podwire.services.desired import ServiceProgram
from podwire.services.elements import target_name


def claims_alike(one: ServiceProgram, other: ServiceProgram) -> bool:
    """Say that two states of a Service claim the same addresses, without naming them: most changes are of endpoints alone."""
    if one.cluster_ips != other.cluster_ips or one.external_ips != other.external_ips or len(one.ports) != len(other.ports):
        return False
    for a, b in zip(one.ports, other.ports, strict=True):
        if a.port != b.port or a.node_port != b.node_port or a.protocol != b.protocol:
            return False
    return one.created == other.created and one.key == other.key


def named_alike(one: ServiceProgram, other: ServiceProgram) -> bool:
    """Say that two states of a Service have the same ports, by all that names them."""
    return [(p.name, p.port, p.protocol) for p in one.ports] == [(p.name, p.port, p.protocol) for p in other.ports]


def targets_gone(old: ServiceProgram, new: ServiceProgram | None) -> set[str]:
    """Give what had ids in an old state of a Service, and in a new one no more."""
    if new is not None and named_alike(old, new):
        return set()
    gone = {target_name(old.key, port) for port in old.ports}
    return gone if new is None else gone - {target_name(new.key, port) for port in new.ports}
