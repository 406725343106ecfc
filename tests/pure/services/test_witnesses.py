"""Specification and walk agree for every packet of any cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podwire import nft
from podwire.nft import walk as walking
from podwire.services import specification as spec
from podwire.services.specification import Cluster, Packet
from pure.services import clusters

BOUNDED = settings(
    max_examples=60,
    deadline=None,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@BOUNDED
@given(clusters.objects(), st.sampled_from(sorted(clusters.NODES)), st.booleans())
def test_specification_and_walk_agree(trees: list[dict[str, Any]], name: str, local_vips: bool) -> None:
    world = clusters.cluster(trees, local_vips=local_vips)
    ruleset = clusters.tabled(world, name)
    for packet in clusters.packets(world, trees, name):
        difference = clusters.disagreement(ruleset, world, packet)
        assert not difference, difference + clusters.as_case(trees, packet, spec.may_happen(world, packet), local_vips=local_vips)


CASES = sorted((Path(__file__).parents[2] / "cases" / "services").glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_cases_that_were_found(path: Path) -> None:
    trees, packet, allowed, local_vips = clusters.case(path.read_text())
    world = clusters.cluster(trees, local_vips=local_vips)
    assert spec.may_happen(world, packet) == allowed
    assert frozenset(clusters.walked(clusters.tabled(world, packet.node), world, packet)) == allowed


def spread() -> tuple[list[dict[str, Any]], Cluster, Packet]:
    [path] = [path for path in CASES if path.stem == "endpoint-without-a-node-reaches-itself"]
    trees, _, _, _ = clusters.case(path.read_text())
    trees[0]["spec"] |= {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}
    trees[1]["endpoints"] = [{"addresses": [a], "nodeName": clusters.PODS[a]} for a in ("10.4.1.2", "10.4.1.3", "10.4.2.2")]
    return trees, clusters.cluster(trees), Packet("node-1", "10.4.1.9", "10.8.0.20", 80)


def test_a_client_is_kept_to_its_endpoint_as_the_specification_says() -> None:
    trees, world, packet = spread()
    ruleset, around = clusters.tabled(world, "node-1"), clusters.surroundings(world, "node-1")
    for first in walking.every_way(ruleset, clusters.walked_packet(packet), around):
        kept_to = first.connection.destination
        again = clusters.walked_packet(packet, 40001)
        later = list(walking.every_way(ruleset, again, around, learnt=first.learnt, now_ms=599_999))
        assert {clusters.outcome(trace) for trace in later} == spec.may_happen(world, packet, kept_to)
        assert len(later) == 1
        too_late = walking.every_way(ruleset, again, around, learnt=first.learnt, now_ms=600_000)
        assert {clusters.outcome(trace) for trace in too_late} == spec.may_happen(world, packet)
    trees[1]["endpoints"].pop(0)
    assert spec.may_happen(clusters.cluster(trees), packet, ("10.4.1.2", 8080)) == spec.may_happen(clusters.cluster(trees), packet)


def test_a_wrong_element_in_tables_or_specification_is_found() -> None:
    trees, world, packet = spread()
    ruleset = clusters.tabled(world, "node-1")
    assert not clusters.disagreement(ruleset, world, packet)
    text = nft.render(ruleset)
    for right, wrong in (("10.4.2.2 . 8080", "10.4.2.3 . 8080"), ("mod 3", "mod 2"), (". tcp . 80 comment", ". udp . 80 comment")):
        assert right in text
        assert clusters.disagreement(nft.parse(text.replace(right, wrong)), world, packet), right
    trees[1]["endpoints"][0]["conditions"] = {"ready": False}
    assert clusters.disagreement(ruleset, clusters.cluster(trees), packet)
