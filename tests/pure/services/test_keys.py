"""The keys of the big map, told from the small ones: those that are there, whatever is programmed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from podwire import nft
from podwire.linux.errors import KernelRefused
from podwire.nft.fake import FakeNftables
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.elements import mark
from podwire.services.keys import backend_keys
from podwire.views.frontends import Backend
from pure.services import clusters
from pure.services.test_tables import BOUNDED, differences, start, wanted


def sets(kernel: FakeNftables) -> dict[str, nft.Set]:
    return {one.name: one for one in kernel.dump().tables[0].sets}


def check(kernel: FakeNftables) -> None:
    """The keys that are told are those that are there, each once."""
    read = sets(kernel)
    keys = backend_keys(read | {"backends": read["backends"].declaration()})
    assert keys is not None
    assert sorted(keys) == sorted(read["backends"].elements)


@settings(BOUNDED, max_examples=60)
@given(clusters.objects(both=False), clusters.objects(both=False))
def test_the_keys_are_those_that_are_there(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    kernel = FakeNftables(KernelRefused)
    first, second = wanted(old), wanted(new)
    one = start(kernel, first)
    check(kernel)
    for before, after in ((first, second), (second, first)):
        one.update(differences(before, after))
        one.expire(one.round)  # what is kept back is not among them
        check(kernel)


def test_many_endpoints_and_what_keeps_to_them() -> None:
    backends = tuple(Backend(f"10.4.{i}.{j}", 8080, "node-2") for i in range(3) for j in range(250))
    port = PortProgram("", "TCP", 80, 0, backends, None, None)
    kernel = FakeNftables(KernelRefused)
    for affinity_s, count in ((0, 750), (600, 1500)):
        one = start(kernel, {"shop/big": ServiceProgram("shop/big", ("10.8.0.9",), (), (), (port,), affinity_s=affinity_s)})
        one.expire(one.round)
        check(kernel)
        assert len(sets(kernel)["backends"].elements) == count


@pytest.mark.parametrize("name", ["backends", "sizes", "handles"])
def test_maps_that_are_not_there_tell_nothing(name: str) -> None:
    kernel = FakeNftables(KernelRefused)
    start(kernel, {})
    assert backend_keys(sets(kernel)) == []
    assert backend_keys({key: one for key, one in sets(kernel).items() if key != name}) is None


def test_maps_that_somebody_made_otherwise_tell_nothing() -> None:
    kernel = FakeNftables(KernelRefused)
    start(kernel, {})
    read = sets(kernel)
    for name, text in (
        ("sizes", "map sizes { type mark : verdict; }"),
        ("sizes", "map sizes { type inet_service : mark; }"),
        ("sizes", "set sizes { type mark; }"),
        ("handles", "map handles { type mark : mark; }"),
        ("handles", "map handles { type mark . mark : mark; flags interval; }"),
        ("handles", "map handles { type mark . mark : mark; flags timeout; }"),
    ):
        other = nft.table(f"table ip t {{ {text} }}").set(name)
        assert backend_keys(read | {name: other}) is None, text


def test_sizes_beyond_what_the_map_may_hold_tell_nothing() -> None:
    kernel = FakeNftables(KernelRefused)
    start(kernel, {})
    read = sets(kernel)
    most = read["backends"].size
    for count, told in ((most, True), (most + 1, False), (2**32 - 1, False)):
        sizes = read["sizes"].with_elements([nft.Element(mark(65536), mark(count))])
        assert (backend_keys(read | {"sizes": sizes}) is not None) == told
    both = [nft.Element(mark(number), mark(most // 2 + 1)) for number in (65536, 65540)]
    assert backend_keys(read | {"sizes": replace(read["sizes"], elements={one.key: one for one in both})}) is None
