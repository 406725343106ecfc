"""Ranges: parts, overlaps, the addresses of a node's Pods."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.ipam import ranges

_networks = st.builds(
    lambda address, prefix: ip_network((address, prefix), strict=False),
    st.integers(0, 2**16 - 1).map(lambda n: n << 16),
    st.integers(8, 24),
)


@given(_networks, _networks)
def test_overlap_is_what_the_standard_library_says(one: IPv4Network, other: IPv4Network) -> None:
    found = ranges.overlaps({"pods": one, "services": other})
    assert bool(found) == one.overlaps(other)


def test_every_pair_is_named() -> None:
    named = {
        "nodes": ip_network("10.0.0.0/8"),
        "pods": ip_network("10.4.0.0/14"),
        "services": ip_network("10.8.0.0/20"),
        "v6": ip_network("fd00::/8"),
    }
    assert [(one.first, one.second) for one in ranges.overlaps(named)] == [("nodes", "pods"), ("nodes", "services")]
    assert str(ranges.overlaps(named)[0]) == "nodes 10.0.0.0/8 overlaps pods 10.4.0.0/14"


def test_parts() -> None:
    network = ip_network("10.4.0.0/14")
    assert ranges.part_count(network, 24) == 1024
    assert ranges.part(network, 24, 3) == ip_network("10.4.3.0/24")
    assert ranges.part_count(network, 8) == 0
    with pytest.raises(IndexError):
        ranges.part(network, 24, 1024)
    assert ranges.part(ip_network("fd00::/56"), 64, 255) == ip_network("fd00:0:0:ff::/64")


@given(st.sets(st.integers(0, 15)), st.booleans())
def test_the_first_free_part(used: set[int], wide: bool) -> None:
    network = ip_network("10.4.0.0/20")
    taken = [ranges.part(network, 24, index) for index in used] + ([ip_network("10.4.0.0/22")] if wide else [])
    found = ranges.free_part(network, 24, taken)
    expected = [one for one in network.subnets(new_prefix=24) if not any(one.overlaps(other) for other in taken)]
    assert found == (expected[0] if expected else None)


def test_pod_addresses_leave_out_network_gateway_and_broadcast() -> None:
    network = ip_network("10.4.1.0/24")
    addresses = list(ranges.pod_addresses(network))
    assert (str(addresses[0]), str(addresses[-1]), len(addresses)) == ("10.4.1.2", "10.4.1.254", 253)
    assert str(ranges.gateway(network)) == "10.4.1.1"


def test_an_address_rests_before_it_is_used_again() -> None:
    network = ip_network("10.4.1.0/29")
    taken, last, given_out = set(), None, []
    for _ in range(5):
        last = ranges.next_pod_address(network, taken, last)
        assert last is not None
        taken.add(last)
        given_out.append(str(last))
    assert given_out == [f"10.4.1.{n}" for n in range(2, 7)]
    assert ranges.next_pod_address(network, taken, last) is None
    taken -= {ip_address("10.4.1.2"), ip_address("10.4.1.4")}
    assert str(ranges.next_pod_address(network, taken, ip_address("10.4.1.3"))) == "10.4.1.4"
    assert str(ranges.next_pod_address(network, taken, ip_address("10.4.1.4"))) == "10.4.1.2"
