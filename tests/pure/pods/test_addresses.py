"""The range of a node: who gets what, when it is full, and when an address is given again."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.pods.addresses import Addresses, AddressTaken, RangeExhausted


def test_addresses_are_given_in_turn_and_a_freed_one_rests(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path, ip_network("10.4.0.0/29"))
    assert [str(addresses.allocate("a")) for _ in range(3)] == ["10.4.0.2", "10.4.0.3", "10.4.0.4"]
    addresses.release(ip_address("10.4.0.2"))
    assert [str(addresses.allocate("b")) for _ in range(3)] == ["10.4.0.5", "10.4.0.6", "10.4.0.2"]


def test_a_full_range_says_so(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path, ip_network("10.4.0.0/29"))
    for _ in range(5):
        addresses.allocate("a")
    with pytest.raises(RangeExhausted, match=r"no address left in 10\.4\.0\.0/29: all 5 are in use"):
        addresses.allocate("b")
    assert addresses.release_owner("a") == [ip_address(f"10.4.0.{number}") for number in range(2, 7)]
    assert str(addresses.allocate("b")) == "10.4.0.2"


def test_what_was_given_is_known_to_the_next_process(tmp_path: Path) -> None:
    Addresses(tmp_path, ip_network("10.4.0.0/24")).allocate("a")
    addresses = Addresses(tmp_path, ip_network("10.4.0.0/24"))
    assert addresses.owners() == {ip_address("10.4.0.2"): "a"}
    assert str(addresses.allocate("b")) == "10.4.0.3"


def test_the_second_family_is_data(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path, ip_network("fd00:10:4::/64"))
    assert str(addresses.gateway) == "fd00:10:4::1"
    assert str(addresses.allocate("a")) == "fd00:10:4::2"


@given(moves=st.lists(st.integers(0, 7), max_size=40))
def test_no_address_has_two_owners_in_any_order_of_things(tmp_path_factory: pytest.TempPathFactory, moves: list[int]) -> None:
    addresses = Addresses(tmp_path_factory.mktemp("range"), ip_network("10.4.0.0/29"))
    held: dict[object, str] = {}
    for move in moves:
        if move < 5:
            try:
                address = addresses.allocate(str(move))
            except RangeExhausted:
                assert len(held) == 5
                continue
            assert address not in held
            held[address] = str(move)
        elif held:
            address = sorted(held)[move % len(held)]  # type: ignore[type-var]
            del held[address]
            addresses.release(address)  # type: ignore[arg-type]
    assert addresses.owners() == held


def test_what_was_asked_for_leaves_the_turn_alone(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path, ip_network("10.4.0.0/24"))
    addresses.allocate("a")
    assert str(addresses.allocate("b", ip_address("10.4.0.9"))) == "10.4.0.9"
    assert str(addresses.allocate("b", ip_address("10.4.0.9"))) == "10.4.0.9"
    with pytest.raises(AddressTaken, match=r"10\.4\.0\.9 is in use"):
        addresses.allocate("c", ip_address("10.4.0.9"))
    assert str(addresses.allocate("a")) == "10.4.0.3"


def test_the_record_is_cut_when_most_of_it_no_longer_counts(tmp_path: Path) -> None:
    one, other = (Addresses(tmp_path, ip_network("10.4.0.0/16")) for _ in range(2))
    kept = one.allocate("kept")
    other.allocate("theirs")
    for _ in range(600):
        one.release(one.allocate("short"))
    size = (tmp_path / "given").stat().st_size
    assert size < 16_000
    assert other.owners() == {kept: "kept", kept + 1: "theirs"}
    assert other.allocate("theirs") == kept + 602  # it is still their turn


def test_a_line_that_was_cut_off_gives_nothing(tmp_path: Path) -> None:
    Addresses(tmp_path, ip_network("10.4.0.0/24")).allocate("a")
    whole = (tmp_path / "given").read_bytes()
    for size in range(len(whole)):
        (tmp_path / "given").write_bytes(whole[:size])
        addresses = Addresses(tmp_path, ip_network("10.4.0.0/24"))
        assert addresses.owners() == {}
        assert addresses.owners() | {addresses.allocate("b"): "b"} == Addresses(tmp_path, ip_network("10.4.0.0/24")).owners()


def test_a_file_made_anew_is_another(tmp_path: Path) -> None:
    addresses = Addresses(tmp_path, ip_network("10.4.0.0/24"))
    addresses.allocate("a")
    (tmp_path / "given").unlink()
    Addresses(tmp_path, ip_network("10.4.0.0/24")).allocate("b")
    assert list(addresses.owners().values()) == ["b"]
