"""The cluster's specification: defaults, and each way to get it wrong, in the words of the file."""

import json

import pytest

from podwire.cluster import spec

HEAD = "apiVersion: podwire.dev/v1alpha1\nkind: Cluster\n"


def test_no_file_means_three_zones_of_one_node() -> None:
    cluster = spec.parse("")
    assert cluster.name == "podwire"
    assert cluster.region == "us-central1"
    assert cluster.node_pools == (spec.NodePool("default-pool", ("us-central1-a", "us-central1-b", "us-central1-c"), 1),)
    assert [str(value) for value in vars(cluster.ranges).values()] == [
        "10.128.0.0/20",
        "10.4.0.0/14",
        "10.8.0.0/20",
        "10.127.0.0/28",
        "203.0.113.0/24",
        "None",
        "None",
        "None",
    ]
    assert not cluster.dual_stack


def test_a_second_family() -> None:
    cluster = spec.parse(HEAD + "spec: {stackType: IPV4_IPV6, ranges: {podsIPv6: 'fd00:4::/104'}}")
    assert cluster.dual_stack
    assert [str(cluster.ranges.nodes_ipv6), str(cluster.ranges.pods_ipv6), str(cluster.ranges.services_ipv6)] == [
        "fd20:0:80::/64",
        "fd00:4::/104",
        "fd20:0:8::/112",
    ]
    assert spec.parse(json.dumps(spec.manifest(cluster))) == cluster


def test_the_command_line_overrides_the_file() -> None:
    text = HEAD + "metadata: {name: a}\nspec:\n  region: europe-west1\n  nodePools:\n  - zones: [europe-west1-d]\n    nodesPerZone: 4\n"
    assert spec.parse(text).node_pools == (spec.NodePool("default-pool", ("europe-west1-d",), 4),)
    cluster = spec.parse(text, name="b", zones=2, nodes_per_zone=3)
    assert cluster.name == "b"
    assert cluster.node_pools == (spec.NodePool("default-pool", ("europe-west1-a", "europe-west1-b"), 3),)
    assert cluster.node_count == 6


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "spec:\n  ranges:\n    podsIPv6: fd00::/64",
            "c.yaml:5: spec.ranges.podsIPv6: only a cluster with spec.stackType: IPV4_IPV6 has IPv6 ranges",
        ),
        (
            "spec:\n  stackType: IPV4_IPV6\n  ranges: {podsIPv6: 10.4.0.0/14}",
            "c.yaml:5: spec.ranges.podsIPv6: expected an IPv6 range such as fd20:0:4::/64, got '10.4.0.0/14' "
            "(At least 3 parts expected in '10.4.0.0')",
        ),
        (
            "spec: {stackType: IPV4_IPV6, ranges: {podsIPv6: 'fd20:0:80::/56'}}",
            "c.yaml:3: spec.ranges.podsIPv6: fd20:0:80::/56 overlaps spec.ranges.nodesIPv6 (fd20:0:80::/64)",
        ),
        (
            "spec: {stackType: IPV4_IPV6, ranges: {podsIPv6: 'fd00::/111'}}",
            "c.yaml:3: spec.ranges.podsIPv6: fd00::/111 has room for 2 nodes of a /112 each, 3 are asked for",
        ),
        (
            "spec: {maxPodsPerNode: 250, ranges: {pods: 10.4.0.0/22}}",
            "c.yaml:3: spec.ranges.pods: 10.4.0.0/22 has room for 2 nodes of a /23 each, 3 are asked for",
        ),
        (
            "spec: {maxPodsPerNode: 1023, ranges: {pods: 10.4.0.0/22}}",
            "c.yaml:3: spec.ranges.pods: 10.4.0.0/22 has room for 0 nodes of a /21 each, 3 are asked for",
        ),
        (
            "spec: {maxPodsPerNode: 1024}",
            "c.yaml:3: spec.maxPodsPerNode: expected a number from 1 to 1023 (a bridge of Linux has no more ports), got 1024",
        ),
        (
            "spec: {registries: [gcr.io, 'https://a.b']}",
            "c.yaml:3: spec.registries[1]: expected HOST[:PORT][/PATH] of a registry, without https://, got 'https://a.b'",
        ),
        (
            "spec: {nodePools: [{zones: [us-central1-a], nodesPerZone: 2, nodeNames: [one]}]}",
            "c.yaml:3: spec.nodePools[0].nodeNames: expected a name for each of 2 nodes (zones times nodesPerZone), got 1",
        ),
        (
            "spec: {nodePools: [{zones: [us-central1-a], nodeNames: [One]}]}",
            "c.yaml:3: spec.nodePools[0].nodeNames[0]: 'One' is no node name: "
            "at most 52 lower-case letters, digits and '-', a letter first",
        ),
        (
            "spec: {nodePools: [{zones: [us-central1-a], nodeNames: [a]}, {name: b, zones: [us-central1-b], nodeNames: [a]}]}",
            "c.yaml:3: spec.nodePools: two nodes have the name 'a'",
        ),
        (
            "spec: {registries: ['localhost:5000', localhost/shop]}",
            "c.yaml:3: spec.registries[1]: expected the port of a registry on this machine, localhost:PORT, got 'localhost/shop'",
        ),
        (
            "spec: {registries: ['[::1]']}",
            "c.yaml:3: spec.registries[0]: expected the port of a registry on this machine, [::1]:PORT, got '[::1]'",
        ),
        ("spec: {hostPaths: [data]}", "c.yaml:3: spec.hostPaths[0]: expected the absolute path of a folder of the machine, got 'data'"),
        ("spec: {hostPaths: [/a, /]}", "c.yaml:3: spec.hostPaths[1]: the whole machine is given to no container: name a folder"),
        ("spec: {proxyMode: ipvs}", "c.yaml:3: spec.proxyMode: expected iptables or nftables, got 'ipvs'"),
        ("spec: {stackType: IPV6}", "c.yaml:3: spec.stackType: expected IPV4 or IPV4_IPV6, got 'IPV6'"),
        (
            "spec: {audit: {lvl: Metadata}}",
            "c.yaml:3: spec.audit.lvl: there is no such field; expected one of level",
        ),
        ("spec:\n  region: &a [*a]", "c.yaml:4: document contains an alias of something that holds it, or of nothing: *a"),
        ("spec: {region: " + "[" * 100_000, "c.yaml:3: document is nested too deeply"),
        ("spec: {ranges: {pods: 10.128.0.0/16}}", "c.yaml:3: spec.ranges.pods: 10.128.0.0/16 overlaps spec.ranges.nodes (10.128.0.0/20)"),
        (
            "spec:\n  ranges:\n    pods: 10.4.0.0/23",
            "c.yaml:5: spec.ranges.pods: 10.4.0.0/23 has room for 2 nodes of a /24 each, 3 are asked for",
        ),
        (
            "spec:\n  ranges:\n    nodes: 10.1.2.3/20",
            "c.yaml:5: spec.ranges.nodes: expected an IPv4 range such as 10.128.0.0/20, got '10.1.2.3/20' (10.1.2.3/20 has host bits set)",
        ),
        (
            "spec:\n  ranges:\n    services: 10.9.0.0/30",
            "c.yaml:5: spec.ranges.services: 10.9.0.0/30 is too small: at least a /27 is needed",
        ),
        (
            "spec:\n  ranges:\n    external: 198.51.100.0/25",
            "c.yaml:5: spec.ranges.external: 198.51.100.0/25 overlaps 198.51.100.0/24, where the lab's internet clients live",
        ),
        ("spec:\n  nodePools:\n  - nodesPerZone: many", "c.yaml:5: spec.nodePools[0].nodesPerZone: expected `int`, got `str`"),
        (
            "spec:\n  nodePools:\n  - zone: a",
            "c.yaml:5: spec.nodePools[0].zone: there is no such field; expected one of name, zones, nodesPerZone, nodeNames",
        ),
        (
            "spec:\n  nodePools:\n  - zones: [europe-west1-b]",
            "c.yaml:5: spec.nodePools[0].zones[0]: 'europe-west1-b' is no zone of region us-central1: "
            "expected us-central1-a, us-central1-b ...",
        ),
        (
            "metadata: {name: Big}",
            "c.yaml:3: metadata.name: 'Big' is no cluster name: "
            "at most 40 lower-case letters, digits and '-', a letter first, and not 'images'",
        ),
        ("spec: [", "c.yaml:3: not YAML: did not find expected node content"),
        ("---\na: 1", "c.yaml:3: expected one Cluster, and there is another document"),
        ("spec: {nodePools: []}", "c.yaml:3: spec.nodePools: at least one node pool is needed"),
    ],
)
def test_what_cannot_be_is_refused_by_file_line_and_field(body: str, message: str) -> None:
    with pytest.raises(spec.Invalid) as refused:
        spec.parse(HEAD + body, file="c.yaml")
    assert str(refused.value) == message


def test_a_specification_written_out_reads_back_the_same() -> None:
    cluster = spec.parse("", name="b", zones=2, nodes_per_zone=3)
    assert spec.parse(json.dumps(spec.manifest(cluster))) == cluster


def test_another_kind_is_refused() -> None:
    with pytest.raises(spec.Invalid, match=r"c\.yaml:2: kind: expected Cluster, got 'Pod'"):
        spec.parse("apiVersion: podwire.dev/v1alpha1\nkind: Pod\n", file="c.yaml")
    with pytest.raises(spec.Invalid, match=r"c\.yaml:1: expected a Cluster .* got list"):
        spec.parse("- a\n", file="c.yaml")
    for nothing in ("", "# none\n"):
        with pytest.raises(spec.Invalid, match=r"c\.yaml: expected a Cluster, and there is nothing"):
            spec.parse(nothing, file="c.yaml")
