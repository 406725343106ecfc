"""What runs where: addresses without gaps or clashes, the same plan each time, one printed command line a process."""

import itertools
import json
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.cluster import addons, plan, spec
from podwire.cluster.paths import Paths
from podwire.daemon import config

PATHS = Paths("/state/podwire/x")


def made(zones: int = 3, nodes_per_zone: int = 1) -> plan.Plan:
    return plan.plan(spec.parse("", name="x", zones=zones, nodes_per_zone=nodes_per_zone), PATHS, api_port=6443)


@given(zones=st.integers(1, 5), nodes_per_zone=st.integers(1, 4))
def test_nodes_have_names_and_addresses_of_their_own(zones: int, nodes_per_zone: int) -> None:
    cluster = made(zones, nodes_per_zone)
    assert len(cluster.nodes) == zones * nodes_per_zone
    for key in ("name", "address", "pod_range", "interface"):
        assert len({getattr(node, key) for node in cluster.nodes}) == len(cluster.nodes)
    assert all(node.address in cluster.spec.ranges.nodes and node.pod_range.subnet_of(cluster.spec.ranges.pods) for node in cluster.nodes)
    assert all(len(node.interface) <= 15 and len(node.name) <= 63 for node in cluster.nodes)
    assert made(zones, nodes_per_zone) == cluster


def test_names_follow_gke_and_the_defaults_are_the_documented_ones() -> None:
    cluster = made()
    assert [node.zone for node in cluster.nodes] == ["us-central1-a", "us-central1-b", "us-central1-c"]
    assert cluster.nodes[0].name.startswith("gke-x-default-pool-")
    assert [str(node.address) for node in cluster.nodes] == ["10.128.0.2", "10.128.0.3", "10.128.0.4"]
    assert [str(node.pod_range) for node in cluster.nodes] == ["10.4.0.0/24", "10.4.1.0/24", "10.4.2.0/24"]
    addresses = (cluster.api_address, cluster.kubernetes_address, cluster.dns_address, cluster.nat_address)
    assert [str(address) for address in addresses] == ["10.127.0.2", "10.8.0.1", "10.8.0.10", "203.0.113.1"]


def test_both_ends_of_each_wire_know_each_others_mac_address() -> None:
    cluster = made()
    known = {
        (place.name, value.link, value.address, value.mac)
        for place in cluster.places
        for value in (request.value for request in place.requests)
        if type(value).__name__ == "Neighbour"
    } | {
        (wire.a_place, value.link, value.address, value.mac)
        for wire in cluster.wires
        for value in (request.value for request in wire.requests)
        if type(value).__name__ == "Neighbour"
    }
    for wire in cluster.wires:
        [far] = [entry for entry in known if entry[:2] == (wire.a_place, wire.a_interface)]
        [near] = [entry for entry in known if entry[:2] == (wire.b_place, wire.b_interface)]
        assert far[3] == wire.b_mac
        assert near[3] == wire.a_mac
        assert not (wire.a_mac[0] | wire.b_mac[0]) & 1  # unicast
    macs = list(itertools.chain.from_iterable((wire.a_mac, wire.b_mac) for wire in cluster.wires))
    assert len(set(macs)) == len(macs)


def test_every_configuration_is_one_that_an_agent_reads() -> None:
    cluster = made()
    for process in cluster.processes:
        if process.arguments[0] != "agent":
            continue
        file = process.arguments[process.arguments.index("--config") + 1]
        assert config.decode(cluster.files[file]).cluster_name == "x"
        identity = process.arguments[process.arguments.index("--kubeconfig") + 1]
        assert identity in {PATHS.kubeconfig(one.name) for one in cluster.identities}
        assert identity != PATHS.kubeconfig("admin"), "no component uses the user's credentials"


def test_the_addons_are_instances_and_cluster_dns() -> None:
    cluster = made()
    trees = addons.trees(cluster, ["dns"])
    assert [tree["kind"] for tree in trees] == ["Instance"] * 3 + ["StorageClass", "ServiceAccount", "Service", "Deployment"]
    assert IPv4Address(trees[5]["spec"]["clusterIP"]) in cluster.spec.ranges.services
    for tree, node in zip(trees, cluster.nodes, strict=False):
        [interface] = tree["spec"]["networkInterfaces"]
        assert (interface["networkIP"], IPv4Network(interface["aliasIPRanges"][0])) == (str(node.address), node.pod_range)
    json.dumps(trees)


def test_the_longest_names_fit_into_certificates_and_no_two_nodes_share_one() -> None:
    text = 'apiVersion: podwire.dev/v1alpha1\nkind: Cluster\nspec: {nodePools: [{name: "%s"}]}\n' % ("p" * 40)
    cluster = plan.plan(spec.parse(text, name="n" * 40, zones=10, nodes_per_zone=100), PATHS, api_port=6443)
    names = [node.name for node in cluster.nodes]
    assert len(set(names)) == len(names) == 1000
    assert max(len(f"system:node:{name}") for name in names) <= 64


@pytest.mark.parametrize(("pods", "prefix"), [(1, 24), (110, 24), (128, 24), (129, 23), (256, 23), (512, 22), (1023, 21)])
def test_a_node_of_more_pods_has_a_wider_range(pods: int, prefix: int) -> None:
    asked = spec.parse(f"apiVersion: podwire.dev/v1alpha1\nkind: Cluster\nspec: {{maxPodsPerNode: {pods}}}")
    assert asked.pod_prefix == prefix
    assert spec.parse(json.dumps(spec.manifest(asked))) == asked
    cluster = plan.plan(asked, PATHS, api_port=6443)
    assert {node.pod_range.prefixlen for node in cluster.nodes} == {prefix}
    for node in cluster.nodes:
        assert config.decode(cluster.files[PATHS.config(f"node/{node.name}")]).max_pods == pods


def test_nodes_have_the_names_that_were_chosen() -> None:
    text = """
apiVersion: podwire.dev/v1alpha1
kind: Cluster
spec:
  nodePools:
  - {name: first, zones: [us-central1-b, us-central1-a], nodesPerZone: 2, nodeNames: [db-1, db-2, web-1, web-2]}
  - {name: second, zones: [us-central1-a]}
"""
    asked = spec.parse(text)
    nodes = plan.plan(asked, PATHS, api_port=6443).nodes
    assert [(node.name, node.zone) for node in nodes[:4]] == [
        ("db-1", "us-central1-b"),
        ("db-2", "us-central1-b"),
        ("web-1", "us-central1-a"),
        ("web-2", "us-central1-a"),
    ]
    assert nodes[4].name.startswith("gke-podwire-second-")
    assert spec.parse(json.dumps(spec.manifest(asked))) == asked
