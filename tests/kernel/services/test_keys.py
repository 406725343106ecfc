"""Tables that are read by the keys that they tell: an agent that starts again, and one that looks whether all is well."""

from __future__ import annotations

from podwire.linux.nftables import Nftables
from podwire.nft import AddElements, DeleteElements, Element
from podwire.services import layout
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.tables import Tables
from podwire.views.frontends import Backend

ENDPOINTS, SERVICES, KEEPING = 5, 200, 20
BACKENDS = ENDPOINTS * (SERVICES + KEEPING)


def tables(door: Nftables) -> Tables:
    return Tables(layout.IPV4, "node-1", ("10.4.0.0/14",), ("10.8.0.0/20",), kernel=door)


def services() -> dict[str, ServiceProgram]:
    """Services, some of which keep clients at their endpoints."""
    found = {}
    for number in range(SERVICES):
        backends = tuple(Backend(f"10.4.{number}.{row}", 8080, "node-2", pod=f"web-{row}") for row in range(ENDPOINTS))
        port, affinity_s = PortProgram("http", "TCP", 80, 0, backends, None, None), 600 if number < KEEPING else 0
        program = ServiceProgram(f"shop/web-{number}", (f"10.8.0.{number}",), (), (), (port,), affinity_s=affinity_s)
        found[program.key] = program
    return found


def start(one: Tables, wanted: dict[str, ServiceProgram]) -> None:
    for _ in one.start(wanted):
        pass


def test_a_new_process_adopts_what_it_has_looked_up() -> None:
    wanted = services()
    with Nftables() as listing, Nftables(look_up_from=1) as door:
        start(tables(listing), wanted)
        before, generation = listing.dump(), listing.generation()
        again = tables(door)
        start(again, wanted)
        assert door.looked_up == BACKENDS
        assert listing.generation() == generation
        assert listing.dump() == before
        found = again.dump(door)
        assert door.looked_up == 2 * BACKENDS
        assert again.findings(found) == []


def test_what_somebody_did_is_found_and_put_right_all_the_same() -> None:
    wanted = services()
    with Nftables() as other, Nftables(look_up_from=1) as door:
        one = tables(door)
        start(one, wanted)
        table = other.dump().tables[0]
        backends = table.set("backends")
        first, second, third = list(backends.elements.values())[:3]
        stranger = Element(b"\1\0\0\0\1\0\0\0", first.value)
        for name, changes in {
            "a place without": [DeleteElements(table.id, backends, [first])],
            "one too many": [AddElements(table.id, backends, [stranger])],
            "one elsewhere": [DeleteElements(table.id, backends, [second]), AddElements(table.id, backends, [stranger])],
            "another value": [
                DeleteElements(table.id, backends, [third]),
                AddElements(table.id, backends, [Element(third.key, first.value, comment=third.comment)]),
            ],
        }.items():
            right = dict(other.dump().tables[0].set("backends").elements)
            other.apply(changes)
            assert one.findings(one.dump(door)), name
            again = tables(door)
            start(again, wanted)
            again.expire(again.round)
            assert again.findings(again.dump(door)) == [], name
            assert {e.value for e in other.dump().tables[0].set("backends").elements.values()} == {e.value for e in right.values()}, name
            one = again
