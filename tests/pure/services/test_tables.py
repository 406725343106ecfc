"""The tables before a kernel in memory: whatever changes, fails or dies, they end as if made anew, and no state between is wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podwire import nft
from podwire.linux.errors import KernelRefused
from podwire.nft.fake import Door, Failing, FakeNftables
from podwire.nft.lookup import NONE_KEYED, Keyed, Keys
from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.services import batches, desired, layout
from podwire.services import specification as spec
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.elements import mark
from podwire.services.tables import Tables
from podwire.views.backends import Backend
from pure.services import clusters

BOUNDED = settings(
    max_examples=30,
    deadline=None,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
NODE = "node-1"
Wanted = dict[str, ServiceProgram]


def wanted(trees: list[dict[str, Any]]) -> Wanted:
    made = clusters.programs(clusters.cluster(trees), NODE)
    return {key: program for key, by_family in made.items() if (program := by_family[4]) is not None}


def tables(kernel: Door) -> Tables:
    return Tables(layout.IPV4, NODE, clusters.POD_RANGES, clusters.SERVICE_RANGES, kernel=kernel)


def differences(old: Mapping[str, ServiceProgram], new: Mapping[str, ServiceProgram]) -> dict[str, ServiceProgram | None]:
    return {key: new.get(key) for key in old.keys() | new.keys()}


def settle(one: Tables, old: Wanted, new: Wanted) -> None:
    """What the agent does: try until the kernel has acknowledged."""
    changes = differences(old, new)
    for _ in range(50):
        with contextlib.suppress(KernelRefused):
            one.update(changes)
            return
        changes = {}
    raise AssertionError("it never settles")


def start(kernel: Door, first: Wanted) -> Tables:
    one = tables(kernel)
    for _ in range(50):
        with contextlib.suppress(KernelRefused):
            for _ in one.start(first):
                pass
            return one
    raise AssertionError("it never starts")


def expire(one: Tables) -> None:
    with contextlib.suppress(KernelRefused):
        one.expire(one.round)


# The numbers that stand for Services and endpoints differ with history: what they lead to does not -----------------------------


def meaning(kernel: FakeNftables) -> dict[str, object]:
    """What the tables say, without numbers: who is led where."""
    [table] = kernel.dump().tables
    sets = {one.name: one.elements for one in table.sets}
    sets["sizes"] = {key: element for key, element in sets["sizes"].items() if key != mark(0)}  # the ceiling of numbers
    backends: dict[bytes, list[bytes]] = {}
    for key, element in sets["backends"].items():
        assert isinstance(element.value, bytes)
        backends.setdefault(key[:4], []).append(element.value)

    def target(number: object) -> object:
        assert isinstance(number, bytes)
        size = sets["sizes"].get(number)
        beyond = sets["short-circuit"].get(number)
        how, keep = sets["how"].get(number), sets["keep"].get(number)
        return (
            sorted(backends.get(number, [])),
            size and size.value,
            number in sets["keep-source"],
            how and how.value,
            keep and keep.value,
            len([k for k in sets["handles"] if k[:4] == number]),
            target(beyond.value) if beyond else None,
        )

    led = {(name, key): target(element.value) for name in ("frontends", "node-ports") for key, element in sets[name].items()}
    plain = (
        "own-endpoints",
        "cluster-ips",
        "guarded",
        "no-endpoints",
        "no-local-endpoints",
        "no-endpoint-ports",
        "no-local-endpoint-ports",
    )
    ranges = sorted((element.key, element.end) for element in sets["source-ranges"].values())
    counts = {name: len(sets[name]) for name in ("backends", "sizes", "keep-source", "short-circuit", "how", "keep", "handles")}
    return {"led": led, "ranges": ranges, "counts": counts, **{name: set(sets[name]) for name in plain}}


def from_scratch(trees: list[dict[str, Any]]) -> dict[str, object]:
    kernel = FakeNftables(KernelRefused)
    start(kernel, wanted(trees))
    return meaning(kernel)


HISTORIES = st.lists(st.tuples(clusters.objects(both=False), st.sampled_from(("stay", "expire", "restart"))), min_size=1, max_size=5)


@settings(BOUNDED, max_examples=15)
@given(HISTORIES)
def test_after_any_history_the_tables_are_as_if_made_anew(history: list[tuple[list[dict[str, Any]], str]]) -> None:
    kernel = FakeNftables(KernelRefused)
    one, have = start(kernel, {}), Wanted()
    for trees, then in history:
        want = wanted(trees)
        one.update(differences(have, want))
        have = want
        if then == "expire":
            one.expire(one.round)
        if then == "restart":
            one = start(kernel, have)
    one.expire(one.round)
    assert meaning(kernel) == from_scratch(history[-1][0])
    before = kernel.generation()
    one = start(kernel, have)
    one.expire(one.round)
    assert meaning(kernel) == from_scratch(history[-1][0])
    assert kernel.generation() == before, "a restart over the right tables changes nothing"


@settings(BOUNDED, max_examples=6)
@given(HISTORIES, st.booleans())
def test_whichever_operation_fails_the_end_is_right(history: list[tuple[list[dict[str, Any]], str]], after: bool) -> None:
    right = from_scratch(history[-1][0])

    def run(fails: Any) -> int:
        kernel = FakeNftables(KernelRefused)
        door = Failing(kernel, fails, KernelRefused, after=after)
        one, have = start(door, {}), Wanted()
        for trees, then in history:
            want = wanted(trees)
            settle(one, have, want)
            have = want
            if then == "expire":
                expire(one)
            if then == "restart":
                one = start(door, have)
        while one.has_stale or not one.sound:
            expire(one)
            settle(one, {}, {})
        assert meaning(kernel) == right
        return door.operations

    operations = run(lambda _: False)
    for n in range(1, operations + 1):
        run(lambda operation, n=n: operation == n)
    for n in (2, 3, 5, 7, 11, 13):
        if n > 5:  # a start takes five operations: a door that fails more often never lets one through
            run(lambda operation, n=n: operation % n == 0)


def test_a_first_start_makes_room_for_all_that_is_wanted() -> None:
    kernel = FakeNftables(KernelRefused)
    backends = tuple(Backend(f"10.4.{i}.{j}", 8080, "node-2") for i in range(60) for j in range(250))
    port = PortProgram("", "TCP", 80, 0, backends, None, None)
    one = tables(kernel)
    for _ in one.start({"shop/big": ServiceProgram("shop/big", ("10.8.0.9",), (), (), (port,))}):
        pass
    held = kernel.dump().tables[0].set("backends")
    assert len(held.elements) == len(backends)
    assert held.size >= 2 * len(backends)


# Between two batches -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tiny_batches() -> Iterator[None]:
    """Every piece a transaction of its own: the states between are those of a big cluster whose changes do not fit into one."""
    was = batches.BATCH, batches.PIECE
    batches.BATCH, batches.PIECE = 1, 1
    try:
        yield
    finally:
        batches.BATCH, batches.PIECE = was


class Watched:
    """A door that is looked at after each transaction."""

    def __init__(self, kernel: FakeNftables, look: Any) -> None:
        self._kernel, self._look = kernel, look
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def apply(self, changes: Sequence[nft.Change]) -> None:
        self._kernel.apply(changes)
        self._look()

    def apply_batches(self, batches: Any) -> None:
        for batch in batches:
            self.apply(batch)


@settings(BOUNDED, max_examples=15)
@given(clusters.objects(both=False), clusters.objects(both=False))
def test_every_state_between_is_right_for_every_packet(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> None:
    worlds = [clusters.cluster(old), clusters.cluster(new)]
    local = {NODE: worlds[0].local[NODE] | worlds[1].local[NODE]}
    worlds = [replace(world, local=local) for world in worlds]
    asked = {p: [spec.may_happen(world, p) for world in worlds] for trees, world in zip((old, new), worlds, strict=True)
             for p in clusters.packets(world, trees, NODE)}  # fmt: skip
    asked = {p: said for p, said in asked.items() if all(one.kind == spec.DELIVERED for one in said[0] | said[1])}
    kernel = FakeNftables(KernelRefused)

    def look() -> None:
        listed = nft.parse(nft.render(kernel.dump()))
        for packet, (before, after) in asked.items():
            found = frozenset(clusters.walked(listed, worlds[0], packet))
            fails = [one for one in found if one.kind != spec.DELIVERED]
            assert not fails, f"{packet}\nbefore {sorted(before)}\nafter {sorted(after)}\nbetween {sorted(found)}"

    one = start(kernel, wanted(old))
    one.expire(one.round)
    one._kernel = Watched(kernel, look)
    with tiny_batches():
        one.update(differences(wanted(old), wanted(new)))
        one.expire(one.round)
    assert meaning(kernel) == from_scratch(new)


class Telling(FakeNftables):
    """A ruleset that is long in being read: when it asks for the keys of a big map, somebody else does something."""

    def __init__(self) -> None:
        super().__init__(KernelRefused)
        self.meanwhile: Callable[[], None] = lambda: None

    def dump(self, tables: Iterable[nft.TableName] | None = None, keyed: Keyed = NONE_KEYED) -> nft.Ruleset:
        def asked(keys: Keys, sets: Mapping[str, nft.Set]) -> Sequence[bytes] | None:
            found = keys(sets)
            self.meanwhile()
            return found

        return super().dump(tables, {name: partial(asked, keys) for name, keys in keyed.items()})


@settings(BOUNDED, max_examples=60)
@given(
    clusters.objects(both=False), clusters.objects(both=False), clusters.objects(both=False), st.sampled_from(["", "it changes", "more"])
)
def test_what_is_told_while_a_kernel_is_read_serves_as_the_whole(
    old: list[dict[str, Any]], then: list[dict[str, Any]], new: list[dict[str, Any]], meanwhile: str
) -> None:
    kernel = Telling()
    before = start(kernel, wanted(old))
    settle(before, wanted(old), wanted(then))  # so that endpoints sit as they came
    expire(before)
    asked = wanted(new)
    one = tables(kernel)

    def expect() -> None:
        kernel.meanwhile = lambda: None
        for _ in one.expect(asked):
            pass
        if meanwhile == "it changes":
            kernel.apply([nft.FlushSet(before.id, "frontends")])

    kernel.meanwhile = expect
    one.read()
    kernel.meanwhile = lambda: None
    for _ in one.start(asked if meanwhile != "more" else dict(asked)):
        pass
    expire(one)
    assert meaning(kernel) == from_scratch(new)
    commits = kernel.commits
    again = tables(kernel)
    for _ in again.start(asked):
        pass
    assert kernel.commits == commits, "nothing is left to be done"


def started_while_read(kernel: Telling, one: Tables, asked: Wanted) -> None:
    """Start over tables, of which some was told before all was read."""
    told: list[bool] = []

    def expect() -> None:
        kernel.meanwhile = lambda: None
        for _ in one.expect(asked):
            pass
        told.append(one._expected is not None and one._expected.told is not None)

    kernel.meanwhile = expect
    one.read()
    for _ in one.start(asked):
        pass
    assert told == [True]


def test_numbers_are_told_by_what_is_read_first() -> None:
    kernel = Telling()
    endpoints = [f"10.4.1.{n}" for n in range(1, 6)]
    spec_ = {"clusterIP": "10.8.0.1", "clusterIPs": ["10.8.0.1"], "ports": [{"port": 80}]}
    service = msgspec.convert({"metadata": {"name": "s", "namespace": "shop"}, "spec": spec_}, Service)

    def program(addresses: list[str]) -> Wanted:
        rows = [{"addresses": [address], "nodeName": "node-2"} for address in addresses]
        piece = msgspec.convert({"metadata": {"name": "x"}, "ports": [{"port": 8080}], "endpoints": rows}, EndpointSlice)
        found = desired.plain("shop/s", service, (piece,), 4)
        assert found is not None
        return {"shop/s": found}

    for now in (endpoints, endpoints[::-1], endpoints[:3]):
        start(kernel, program(endpoints))
        one, commits = tables(kernel), kernel.commits
        started_while_read(kernel, one, program(now))
        assert (kernel.commits == commits) == (len(now) == len(endpoints)), "in whatever order they are wanted, they sit where they sat"
        one.expire(one.round)


def test_endpoints_of_a_local_policy_sit_where_they_sat_though_they_are_told_last() -> None:
    kernel = Telling()
    endpoints = tuple(Backend(f"10.4.0.{n}", 8080, NODE) for n in range(1, 6))

    def program(backends: tuple[Backend, ...]) -> Wanted:
        port = PortProgram("", "TCP", 80, 30_000, backends, backends, backends)
        return {"shop/s": ServiceProgram("shop/s", ("10.8.0.1",), (), (), (port,))}

    start(kernel, program(endpoints))
    commits = kernel.commits
    started_while_read(kernel, tables(kernel), program(endpoints[::-1]))
    assert kernel.commits == commits


def plain(name: str, address: str, *endpoints: str, port: int = 80, target: int = 8080) -> ServiceProgram:
    spec_ = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": port}]}
    service = msgspec.convert({"metadata": {"name": name, "namespace": "shop"}, "spec": spec_}, Service)
    rows = [{"addresses": [one], "nodeName": "node-2"} for one in endpoints]
    piece = msgspec.convert({"metadata": {"name": "x"}, "ports": [{"port": target}], "endpoints": rows}, EndpointSlice)
    found = desired.plain(service.key, service, (piece,), 4)
    assert found is not None
    return found


BAD = {
    "endpoint": plain("bad", "10.8.0.2", "10.4.1.1", "nonsense"),
    "address": plain("bad", "nonsense", "10.4.1.1"),
    "port": plain("bad", "10.8.0.2", "10.4.1.1", port=70_000),
    "target": plain("bad", "10.8.0.2", "10.4.1.1", target=-1),
    "outside": msgspec.structs.replace(plain("bad", "10.8.0.2", "10.4.1.1"), external_ips=("010.0.0.1",), plain=False),
}


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("what", BAD)
def test_a_service_that_cannot_be_programmed_keeps_no_other_from_a_start(what: str, told: bool) -> None:
    kernel, good = Telling(), {"shop/good": plain("good", "10.8.0.1", "10.4.1.1")}
    asked = {**good, "shop/bad": BAD[what]}
    right = FakeNftables(KernelRefused)
    start(right, good)
    for _ in range(2):  # nothing is there, then it is
        one = start(kernel, asked) if not told else tables(kernel)
        if told:

            def expect(one: Tables = one) -> None:
                kernel.meanwhile = lambda: None
                for _ in one.expect(asked):
                    pass

            kernel.meanwhile = expect
            one.read()
            for _ in one.start(asked):
                pass
        assert list(one.refused) == ["shop/bad"]
        assert meaning(kernel) == meaning(right)
    one.update({"shop/bad": plain("bad", "10.8.0.2", "10.4.1.9")})
    assert not one.refused
    one.update({"shop/bad": BAD[what]})
    one.expire(one.round)
    assert list(one.refused) == ["shop/bad"]
    assert meaning(kernel) == meaning(right)


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_of_two_that_claim_one_address_the_one_that_cannot_be_programmed_is_left_out(names: tuple[str, str]) -> None:
    good, bad = names
    sound, broken = plain(good, "10.8.0.1", "10.4.1.1"), plain(bad, "10.8.0.1", "10.4.1.2", "nonsense")
    both, alone = {f"shop/{good}": sound, f"shop/{bad}": broken}, {f"shop/{good}": sound}
    right = FakeNftables(KernelRefused)
    start(right, alone)
    for asked in (both, dict(reversed(both.items()))):
        kernel = FakeNftables(KernelRefused)
        one = start(kernel, asked)
        assert list(one.refused) == [f"shop/{bad}"]
        assert meaning(kernel) == meaning(right)
    one.update({f"shop/{bad}": plain(bad, "10.8.0.1", "10.4.1.2")})
    assert not one.refused
    one.update({f"shop/{bad}": broken})  # whoever of the two has the address
    assert list(one.refused) == [f"shop/{bad}"]
    one.expire(one.round)
    assert meaning(kernel) == meaning(right)


def test_what_was_written_ahead_of_a_comparison_does_not_serve_a_later_one() -> None:
    """The table that was read turns out to be of another shape, and is built anew; then a change is refused."""
    kernel, before, after = Telling(), {"shop/s": plain("s", "10.8.0.1", "10.4.1.1")}, {"shop/s": plain("s", "10.8.0.1", "10.4.1.2")}
    first = start(kernel, before)
    kernel.apply([nft.AddChain(first.id, nft.Chain("somebody"))])
    failing = [False]
    one = tables(Failing(kernel, lambda _: failing[0], KernelRefused))

    def expect() -> None:
        kernel.meanwhile = lambda: None
        for _ in one.expect(before):
            pass

    kernel.meanwhile = expect
    one.read()
    for _ in one.start(before):
        pass
    assert one.id != first.id
    failing[0] = True
    with pytest.raises(KernelRefused):
        one.update({"shop/s": after["shop/s"]})
    failing[0] = False
    one.update({})
    right = FakeNftables(KernelRefused)
    start(right, after)
    assert meaning(kernel) == meaning(right)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_door_that_fails_says_which_operation_it_was(n: int) -> None:
    door = Failing(FakeNftables(), lambda operation: operation == n)
    change = nft.AddTable(("ip", "t"))
    for operation in range(1, 4):
        if operation == n:
            with pytest.raises(OSError, match=f"add table ip t: .*operation {n} was to fail"):
                door.apply([change])
        else:
            door.apply([change])
    assert len(door.dump().tables) == (1 if n < 4 else 0)
