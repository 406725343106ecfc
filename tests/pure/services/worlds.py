"""A program of a node before a kernel in memory, driven as the agent drives it, and Services for it."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st

from podwire.nft.datatypes import HOST
from podwire.services import desired, layout
from podwire.services.adoption import adopt, ways
from podwire.services.elements import mark
from podwire.services.numbers import Numbers
from podwire.services.ruleset import Program
from podwire.services.structure import structure
from podwire.views.backends import Backend
from podwire.views.frontends import Frontend, ServiceFrontends
from podwire.views.topology import Place
from pure.services import fake

STRUCTURE = structure(layout.IPV4, ["10.4.0.0/14"], ["10.8.0.0/20"])
HERE = Place("node-1", "a")


def number(data: Any) -> int:
    assert isinstance(data, bytes)
    return int.from_bytes(data, HOST)


def backends(count: int = 8) -> st.SearchStrategy[tuple[Backend, ...]]:
    def one(which: int, here: bool, ready: bool, terminating: bool) -> Backend:
        return Backend(f"10.4.{0 if here else 1}.{which}", 8080, "node-1" if here else "node-2", f"shop/p{which}", ready, True, terminating)

    each = st.builds(one, st.integers(1, count), st.booleans(), st.booleans(), st.booleans())
    return st.lists(each, max_size=5, unique_by=lambda b: b.address).map(tuple)


@st.composite
def services(draw: st.DrawFn, key: str) -> ServiceFrontends:
    which = int(key[-1])
    names = draw(st.sampled_from([("",), ("http",), ("http", "dns")]))
    ports = tuple(
        Frontend(
            name, "UDP" if name == "dns" else "TCP", 80 + i, draw(st.sampled_from([0, 30000 + 10 * which + i, 31000])), draw(backends())
        )
        for i, name in enumerate(names)
    )
    if draw(st.booleans()):  # as most are
        plain = tuple(msgspec.structs.replace(port, node_port=0) for port in ports)
        return ServiceFrontends(key, (f"10.8.0.{which + 1}",), (), (), plain)
    return ServiceFrontends(
        key,
        (f"10.8.0.{which + 1}", "fd00::1"),
        draw(st.sampled_from([(), ("192.0.2.1",)])),
        draw(st.sampled_from([(), (f"203.0.113.{which + 1}",)])),
        ports,
        affinity_s=draw(st.sampled_from([0, 0, 600])),
        external_local=draw(st.booleans()),
        internal_local=draw(st.booleans()),
        source_ranges=draw(st.sampled_from([(), ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24")])),
    )


KEYS = [f"shop/s{i}" for i in range(4)]


class World:
    """A program before a kernel, driven as the agent drives it."""

    def __init__(self) -> None:
        self.kernel = fake.FakeKernel()
        self.program = Program(STRUCTURE, "node-1", Numbers())
        self.kernel.apply([*STRUCTURE.create(), *STRUCTURE.hook()])
        self.program.reconcile(None)
        self.wanted: dict[str, desired.ServiceProgram] = {}
        self.given = 0  # the highest number that the kernel has ever held

    def put(self, key: str, view: ServiceFrontends | None) -> None:
        wanted = None if view is None else desired.program(view, HERE)
        self.program.put(key, wanted)
        self.wanted.pop(key, None)
        if wanted is not None:
            self.wanted[key] = wanted

    def take(self) -> None:
        for batch in self.program.take():
            self.kernel.apply(batch)
            self.check()

    def expire(self) -> None:
        self.kernel.apply_batches(self.program.expire(self.program.round))
        self.check()

    def restart(self) -> None:
        numbers, table = Numbers(), self.kernel.table()
        adopt(numbers, table.sets, ways(self.wanted.values()))
        assert numbers._next > self.given  # numbers that were drawn and never given to the kernel may be drawn again
        self.program = Program(STRUCTURE, "node-1", numbers)
        for key, wanted in self.wanted.items():
            self.program.put(key, wanted)
        self.program.reconcile(table)

    def check(self) -> None:
        """Whatever a packet looks up leads to an endpoint, at every moment."""
        elements = self.kernel.elements
        held = [number(key[:4]) for name in ("backends", "short-circuit") for key in elements[name]]
        held += [number(element.value) for element in elements["handles"].values()]
        self.given = max([self.given, *held])
        assert not held or self.given < number(elements["sizes"][mark(0)].value)
        without = {element.key for element in elements["short-circuit"].values()}
        for place in ("frontends", "node-ports"):
            for element in elements[place].values():
                assert element.value in elements["sizes"] or element.value in without
        for element in elements["short-circuit"].values():
            assert element.value in elements["sizes"]
        for key, element in elements["sizes"].items():
            if key == mark(0):
                continue
            count = number(element.value)
            assert mark(count) in elements["pick"]
            slots = [elements["backends"][key + mark(slot)].value for slot in range(count)]
            assert len(set(slots)) == count or self.program.changed or self.program.has_stale
        for key in elements["handles"]:
            assert key[:4] + elements["handles"][key].value in elements["backends"]


def is_as_made_anew(world: World) -> None:
    again = Program(STRUCTURE, "node-1", world.program.numbers)
    for key in reversed(list(world.wanted)):
        again.put(key, world.wanted[key])
    for field in world.program._sets:
        there = {
            key: element for key, element in world.kernel.elements[field.replace("_", "-")].items() if key != mark(0) or field != "sizes"
        }
        assert there == {key: element for key, element in again.wanted(field).items() if key != mark(0) or field != "sizes"}, field
