"""The agent's rounds before kernels in memory: what it is told, in whatever order and whatever fails, the kernels come to hold."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podwire.services.agent import FORMER
from pure.services.rounds import Rounds
from pure.services.test_tables import meaning


def service(ip: str, *sources: str, protocol: str = "TCP") -> dict[str, Any]:
    tree: dict[str, Any] = {"spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80, "protocol": protocol}]}}
    if sources:
        tree["spec"] |= {"type": "LoadBalancer", "loadBalancerSourceRanges": sources}
        tree["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
    return tree


def slice_of(name: str, *addresses: str, protocol: str = "TCP") -> dict[str, Any]:
    rows = [{"addresses": [address], "nodeName": "node-2"} for address in addresses]
    labels = {"kubernetes.io/service-name": name}
    return {"metadata": {"labels": labels}, "ports": [{"port": 8080, "protocol": protocol}], "endpoints": rows}


ODD = {
    "ranges": (service("10.8.0.9", "010.0.0.0/8"), None),  # leading zeros, as some old Services have
    "endpoints": (service("10.8.0.9", protocol="UDP"), slice_of("odd", "nonsense", protocol="UDP")),
}


@pytest.mark.parametrize("what", ODD)
def test_a_service_that_is_not_to_be_understood_keeps_no_other_from_being_programmed(what: str) -> None:
    odd, piece = ODD[what]

    async def main() -> None:
        right, rounds = Rounds(), Rounds()
        for one in (right, rounds):
            one.service("a", service("10.8.0.1"))
            one.slice("a-x", slice_of("a", "10.4.1.1"))
        rounds.slice("odd-x", piece)
        rounds.service("odd", odd)
        for _ in range(2):
            await right.round()
            await rounds.round()
            assert meaning(rounds.kernels[0]) == meaning(right.kernels[0])
            assert not rounds.proxy._dirty
            for one in (right, rounds):
                one.slice("a-x", slice_of("a", "10.4.1.2"))
                if one is rounds:
                    one.service("odd", odd)
                one.service("b", service("10.8.0.2"))
        rounds.service("odd", service("10.8.0.9", "10.0.0.0/8"))
        right.service("odd", service("10.8.0.9", "10.0.0.0/8"))
        rounds.slice("odd-x", None)
        await right.round()
        await rounds.round()
        assert meaning(rounds.kernels[0]) == meaning(right.kernels[0])

    asyncio.run(main())


def test_an_address_of_the_other_family_in_a_slice_is_passed_over() -> None:
    """No API takes it: what is alike in columns must be as what is not."""
    histories = [["10.4.1.1"], ["fd00:4::1"], ["10.4.1.1", "fd00:4::1"], ["fd00:4::2", "10.4.1.1"], ["10.4.1.2", "fd00:4::2"]]

    async def main() -> None:
        right, rounds = Rounds(), Rounds()
        for one in (right, rounds):
            one.service("a", service("10.8.0.1"))
        for addresses in histories:
            right.slice("a-x", slice_of("a", *[address for address in addresses if ":" not in address]))
            rounds.slice("a-x", slice_of("a", *addresses))
            for one in (right, rounds):
                await one.round()
                one.expire()
            assert meaning(rounds.kernels[0]) == meaning(right.kernels[0])

    asyncio.run(main())


def test_former_slices_do_not_heap_up_where_no_round_follows() -> None:
    async def main() -> None:
        rounds = Rounds()
        await rounds.round()
        for at in range(2 * FORMER):
            rounds.slice("x", slice_of("", f"10.4.1.{at % 250}"))
        assert len(rounds.proxy._former) == FORMER
        rounds.service("a", service("10.8.0.1"))
        await rounds.round()
        assert not rounds.proxy._former

    asyncio.run(main())
