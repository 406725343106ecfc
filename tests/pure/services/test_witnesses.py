"""Specification and walk agree for every packet of any cluster."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from podwire.services import specification as spec
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
