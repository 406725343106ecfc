"""Nodes that come and go beside the specification: whatever the order, no two share anything, and what is kept reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.cluster import changes, plan, spec
from podwire.cluster.changes import Changes, Unknown, Upgrade
from podwire.cluster.paths import Paths
from podwire.cluster.upgrade import Add, Remove, Replace, next_step

PATHS = Paths("/state/podwire/x")
SPEC = spec.parse("", name="x", zones=2, nodes_per_zone=2)


def planned(made: Changes) -> plan.Plan:
    return plan.plan(SPEC, PATHS, api_port=6443, changes=made)


@given(moves=st.lists(st.tuples(st.sampled_from(["add", "delete", "stop", "start"]), st.integers(0, 9)), max_size=30))
def test_no_two_nodes_share_a_name_or_an_address_in_any_order_of_things(moves: list[tuple[str, int]]) -> None:
    made = Changes()
    for word, number in moves:
        now = planned(made)
        node = now.nodes[number % len(now.nodes)] if now.nodes else None
        if word == "add":
            made = made.add(plan.new_node(now, "default-pool", SPEC.node_pools[0].zones[number % 2]))
        elif node is not None:
            made = made.delete(node.name) if word == "delete" else made.stop([node.name]) if word == "stop" else made.start([node.name])
        after = planned(made)
        for key in ("name", "address", "pod_range", "interface"):
            assert len({getattr(each, key) for each in after.nodes}) == len(after.nodes)
        assert {process.pid_namespace for process in after.processes} - {""} == {each.name for each in after.nodes}
        assert set(after.running) == {each.name for each in after.nodes} - set(made.stopped)
        assert {each.name for each in now.nodes} & {each.name for each in after.nodes} >= {
            each.name for each in now.nodes if word != "delete" or each != node
        }
        kept = {each.name: each for each in now.nodes}
        assert all(kept.get(each.name, each) == each for each in after.nodes)  # nobody's address changes
    assert changes.decode(changes.encode(made)) == made


@given(
    surge=st.integers(0, 3),
    unavailable=st.integers(0, 3),
    after=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    stop=st.integers(0, 6),
    lost=st.integers(0, 9),
)
def test_an_upgrade_goes_on_from_wherever_it_was(surge: int, unavailable: int, after: tuple[int, int], stop: int, lost: int) -> None:
    pool = "default-pool"
    start = planned(Changes())
    old = {node.name for node in start.nodes}
    made = Changes().begin_upgrade(pool, sorted(old))
    limits = (surge, unavailable) if surge + unavailable else (1, 0)
    most, least, size = limits[0], limits[1], len(old)
    for number in range(100):
        if number == stop:  # interrupted, and begun again with other limits; a node was deleted meanwhile
            limits = after if sum(after) else (0, 1)
            most, least = max(most, limits[0]), max(least, limits[1])
            victim = sorted(made.upgrades[0].old)[lost % len(made.upgrades[0].old)] if made.upgrades and made.upgrades[0].old else ""
            if victim and lost < 5:
                made, size, least = made.delete(victim), size - 1, least + 1
        assert changes.decode(changes.encode(made)) == made
        now = planned(made)
        upgrade = made.upgrade(pool)
        assert upgrade is not None
        assert len(now.nodes) <= size + most
        step = next_step(upgrade, *limits)
        match step:
            case Add(like):
                made = made.add_ahead(plan.new_node(now, pool, now.node(like).zone))
            case Replace(nodes):
                assert 0 < len(nodes) <= sum(limits) or len(upgrade.surplus) > limits[0]
                assert sum(1 for _, ahead in nodes if not ahead) <= limits[1]
                for name, ahead in nodes:
                    made = made.replace(name, ahead or plan.new_node(planned(made), pool, now.node(name).zone))
            case Remove(node):
                made = made.delete(node)
            case None:
                break
    final = planned(made.end_upgrade(pool))
    assert not old & {node.name for node in final.nodes}
    assert len(final.nodes) == size
    assert final.changes.upgrades == ()


def test_who_is_cordoned_goes_first() -> None:
    assert next_step(Upgrade("p", ("a", "b", "c")), 0, 1, {"c"}) == Replace((("c", ""),))
    assert next_step(Upgrade("p", ("a", "b", "c"), ("n",)), 1, 1, {"c"}) == Replace((("c", "n"), ("a", "")))
    assert next_step(Upgrade("p", (), ("n",)), 1, 0) == Remove("n")


def test_a_zone_and_a_node_without_power_are_dark() -> None:
    made = Changes().stop_zone("us-central1-b")
    dark = planned(made).dark
    assert dark == tuple(node.interface for node in planned(made).nodes if node.zone == "us-central1-b")
    first = planned(made).nodes[0]
    assert set(planned(made.stop([first.name])).dark) == {first.interface, *dark}
    assert planned(made.start_zone("us-central1-b")).dark == ()


def test_names_that_are_not_there_are_refused_with_those_that_are() -> None:
    with pytest.raises(Unknown, match="there is no zone 'z'; there are: a, b"):
        changes.known("zone", ["a", "z"], ["a", "b"])


def test_a_range_that_is_full_says_so() -> None:
    small = spec.parse(
        "apiVersion: podwire.dev/v1alpha1\nkind: Cluster\nspec:\n"
        "  ranges: {pods: 10.4.0.0/23}\n  nodePools: [{zones: [us-central1-a], nodesPerZone: 2}]\n"
    )
    now = plan.plan(small, PATHS, api_port=1)
    added = Changes().add(plan.new_node(now, "default-pool", "us-central1-a"))
    with pytest.raises(plan.NoRoom, match=r"spec\.ranges\.pods: 10\.4\.0\.0/23 has no range left for another node"):
        plan.plan(small, PATHS, api_port=1, changes=added)


def test_the_grace_period_is_read_and_refused_by_its_field() -> None:
    head = "apiVersion: podwire.dev/v1alpha1\nkind: Cluster\nspec:\n  nodeMonitorGracePeriodSeconds: "
    found = spec.parse(head + "5\n")
    assert found.node_grace_s == 5
    assert spec.parse(str(spec.manifest(found)).replace("'", '"')) == found
    with pytest.raises(
        spec.Invalid, match=r"c\.yaml:4: spec\.nodeMonitorGracePeriodSeconds: expected a number of seconds from 2 to 3600, got 1"
    ):
        spec.parse(head + "1\n", file="c.yaml")
