"""Pools give out each number once, the low part last, and take back."""

from __future__ import annotations

import doctest
import random
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import podwire.ipam
from podwire.ipam.addresses import AddressPool, Unavailable, service_static_part
from podwire.ipam.pool import Pool, static_part
from podwire.ipam.ports import PortPool


@given(st.integers(0, 200), st.integers(0, 200), st.integers())
def test_a_pool_gives_every_number_once_and_the_low_ones_last(size: int, static: int, seed: int) -> None:
    pool = Pool(size, static)
    below = random.Random(seed).randrange
    given_out = [pool.give(below) for _ in range(size)]
    assert sorted(given_out) == list(range(size))  # type: ignore[type-var]
    assert pool.give(below) is None
    upper = given_out[: size - min(static, size)]
    assert all(number is not None and number >= min(static, size) for number in upper)
    for number in given_out:
        assert number is not None
        pool.release(number)
    assert pool.free == size


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "release"]), st.integers(-2, 12))))
def test_a_pool_agrees_with_a_set(steps: list[tuple[str, int]]) -> None:
    pool, model = Pool(10, 3), set[int]()
    for verb, number in steps:
        match verb:
            case "take":
                assert pool.take(number) == (0 <= number < 10 and number not in model)
                model |= {number} & set(range(10))
            case "give":
                got = pool.give(random.Random(0).randrange)
                assert (got is None) == (len(model) == 10)
                if got is not None:
                    assert got not in model
                    model.add(got)
            case "release":
                pool.release(number)
                model.discard(number)
        assert len(pool) == len(model)
        assert all((number in pool) == (number in model) for number in range(10))


@pytest.mark.parametrize(
    ("network", "kept"),
    [
        ("10.8.0.0/28", 0),
        ("10.8.0.0/27", 16),
        ("10.8.0.0/24", 16),
        ("10.8.0.0/20", 256),
        ("10.8.0.0/16", 256),
        ("fd00::/108", 256),
        ("fd00::/64", 256),
    ],
)
def test_how_many_service_addresses_are_kept(network: str, kept: int) -> None:
    assert service_static_part(ip_network(network)) == kept


def test_how_many_node_ports_are_kept() -> None:
    assert static_part(2768, step=32, least=16, most=128) == 86
    ports = PortPool()
    assert min(ports.give(lambda n: 0) for _ in range(3)) == 30086


def test_addresses_of_a_small_range() -> None:
    pool = AddressPool(IPv4Network("10.0.0.0/29"))
    got = {str(pool.give(lambda n: 0)) for _ in range(6)}
    assert got == {f"10.0.0.{n}" for n in range(1, 7)}
    with pytest.raises(Unavailable, match="range is full"):
        pool.give(lambda n: 0)


def test_the_last_address_of_an_ipv6_range_can_be_given() -> None:
    pool = AddressPool(IPv6Network("fd00::/126"))
    assert {str(pool.give(lambda n: 0)) for _ in range(3)} == {"fd00::1", "fd00::2", "fd00::3"}
    assert pool.family == "IPv6"


def test_a_huge_range_costs_nothing() -> None:
    pool = AddressPool(IPv6Network("fd00::/64"), static=256)
    assert pool.give(random.Random(1).randrange) in IPv6Network("fd00::/64")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("10.9.0.1", "the provided IP (10.9.0.1) is not in the valid range. The range of valid IPs is 203.0.113.0/24"),
        ("fd00::1", "is not in the valid range"),
        ("203.0.113.0", "is reserved"),
        ("203.0.113.255", "is reserved"),
        ("203.0.113.1", "is reserved"),
        ("203.0.113.9", "provided IP is already allocated"),
    ],
)
def test_addresses_that_cannot_be_had(address: str, message: str) -> None:
    pool = AddressPool(IPv4Network("203.0.113.0/24"), reserved=[ip_address("203.0.113.1")])
    pool.take(ip_address("203.0.113.9"))
    with pytest.raises(Unavailable) as raised:
        pool.take(ip_address(address))
    assert message in str(raised.value)


def test_reserved_addresses_are_never_given_nor_released() -> None:
    pool = AddressPool(IPv4Network("203.0.113.0/29"), reserved=[ip_address("203.0.113.1")])
    pool.release(ip_address("203.0.113.1"))
    assert {str(pool.give(lambda n: 0)) for _ in range(5)} == {f"203.0.113.{n}" for n in range(2, 7)}
    pool.release(ip_address("203.0.113.4"))
    assert str(pool.give(lambda n: 0)) == "203.0.113.4"


def test_ports_that_cannot_be_had() -> None:
    ports = PortPool(30000, 30001)
    ports.take(30000)
    with pytest.raises(Unavailable, match="provided port is already allocated"):
        ports.take(30000)
    with pytest.raises(Unavailable, match="The range of valid ports is 30000-30001"):
        ports.take(80)
    assert ports.give(lambda n: 0) == 30001
    with pytest.raises(Unavailable, match="range is full"):
        ports.give(lambda n: 0)
    ports.release(30000)
    assert ports.free == 1


def test_the_readme_tells_the_truth() -> None:
    readme = Path(podwire.ipam.__file__).with_name("README.md")
    assert doctest.testfile(str(readme), module_relative=False).failed == 0
