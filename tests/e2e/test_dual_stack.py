"""A cluster of two families: nodes, Pods, Services, names and routes have both, and packets go over either."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from e2e.lab import Cluster, User, a_cluster, a_user, installation

SPEC = """apiVersion: podwire.dev/v1alpha1
kind: Cluster
spec:
  stackType: IPV4_IPV6
  ranges: {podsIPv6: "fd00:4::/96"}
"""
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "users6"},
    "spec": {
        "type": "NodePort",
        "ipFamilyPolicy": "RequireDualStack",
        "ipFamilies": ["IPv6", "IPv4"],
        "selector": {"app": "demo", "component": "users"},
        "ports": [{"name": "http", "port": 8080}],
    },
}


@pytest.fixture(scope="module")
def both(uid: int) -> Iterator[Cluster]:
    with a_user(uid) as user, a_cluster(user, "both", "-f", specification(user)) as cluster:
        cluster.podwire("apply", "-f", f"{installation()}/examples/page")
        cluster.podwire("apply", "-f", "-", stdin=json.dumps(SERVICE))
        cluster.ready()
        yield cluster


def specification(user: User) -> str:
    file = user.home / "both.yaml"
    file.write_text(SPEC)
    return str(file)


def pods(cluster: Cluster, component: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.get("pods", "-l", f"app=demo,component={component}" if component else "!component")["items"]
    return found


def test_nodes_and_pods_have_an_address_of_each_family(both: Cluster) -> None:
    ranges = {4: ip_network("10.4.0.0/14"), 6: ip_network("fd00:4::/96")}
    for node in both.get("nodes")["items"]:
        internal = [ip_address(one["address"]) for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        assert [one.version for one in internal] == [4, 6]
        assert [ip_network(text).prefixlen for text in node["spec"]["podCIDRs"]] == [24, 112]
    for pod in both.get("pods", "-A")["items"]:
        addresses = [ip_address(one["ip"]) for one in pod["status"]["podIPs"]]
        assert [one.version for one in addresses] == [4, 6]
        assert all(one in ranges[one.version] for one in addresses)
        assert [ip_address(one["ip"]).version for one in pod["status"]["hostIPs"]] == [4, 6]


def test_a_pod_sees_another_pods_address_in_the_second_family(both: Cluster) -> None:
    [client] = pods(both, "")
    servers = pods(both, "users")
    assert {server["spec"]["nodeName"] == client["spec"]["nodeName"] for server in servers} == {True, False}
    for server in servers:
        [answer] = both.fetch("pod/default/client", f"http://[{server['status']['podIPs'][1]['ip']}]:8080/")
        assert answer["caller"]["address"] == client["status"]["podIPs"][1]["ip"]
        assert answer["pod"]["name"] == server["metadata"]["name"]


def test_a_service_has_both_and_spreads_in_both(both: Cluster) -> None:
    service = both.get("service", "users6")
    assert [ip_address(one).version for one in service["spec"]["clusterIPs"]] == [6, 4]
    slices = both.get("endpointslices", "-l", "kubernetes.io/service-name=users6")["items"]
    assert sorted(one["addressType"] for one in slices) == ["IPv4", "IPv6"]
    for url in (f"http://[{service['spec']['clusterIPs'][0]}]:8080/", f"http://{service['spec']['clusterIPs'][1]}:8080/"):
        answers = both.fetch("pod/default/client", url, 80)
        counts = collections.Counter(answer["pod"]["name"] for answer in answers)
        # 80 draws from 4: fewer than 5 for one of them has a chance of about 1 in 25,000.
        assert len(counts) == 4
        assert min(counts.values()) >= 5


def test_names_and_node_ports_in_the_second_family(both: Cluster) -> None:
    resolve = "import socket; print(sorted({one[4][0] for one in socket.getaddrinfo('users6', 8080, type=socket.SOCK_STREAM)}))"
    found = both.exec("pod/default/client", both.user.python, "-c", resolve).stdout
    service = both.get("service", "users6")
    assert found.strip() == str(sorted(service["spec"]["clusterIPs"]))
    port = service["spec"]["ports"][0]["nodePort"]
    here, *others = both.get("nodes")["items"]
    for node in others:
        address = next(one["address"] for one in node["status"]["addresses"] if ":" in one["address"])
        [answer] = both.fetch(f"node/{here['metadata']['name']}", f"http://[{address}]:{port}/")
        assert answer["pod"]["name"].startswith("users-")


def test_an_address_that_no_pod_has_is_refused_at_once(both: Cluster) -> None:
    for node in both.get("nodes")["items"]:
        nobody = ip_network(node["spec"]["podCIDRs"][1])[-2]
        connect = f"import socket; s = socket.socket(socket.AF_INET6); s.settimeout(20); s.connect(('{nobody}', 80))"
        done = both.exec("pod/default/client", both.user.python, "-c", connect, status=1)
        assert "No route to host" in done.stderr or "Network is unreachable" in done.stderr


def test_host_ports_lead_to_a_pod_in_both_families(both: Cluster) -> None:
    port = {"containerPort": 8080, "hostPort": 8095}
    spec = {"containers": [{"name": "server", "image": "example.com/server", "ports": [port]}]}
    both.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "host"}, "spec": spec}))
    both.kubectl("wait", "--for=condition=Ready", "pod/host", "--timeout=60s")
    node = both.get("node", both.get("pod", "host")["spec"]["nodeName"])
    addresses = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
    name = node["metadata"]["name"]
    for where, address in [(f"node/{name}", "127.0.0.1"), (f"node/{name}", "::1")] + [("pod/default/client", one) for one in addresses]:
        [answer] = both.fetch(where, f"http://[{address}]:8095/" if ":" in address else f"http://{address}:8095/")
        assert answer["pod"]["name"] == "host", (where, address)
