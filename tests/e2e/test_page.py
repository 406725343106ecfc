"""The page's example on a cluster, seen from every side: by Pods, by name, from the internet, from this machine."""

from __future__ import annotations

import collections
import json
import urllib.request
from typing import Any

import pytest

from e2e.lab import Cluster, installation, until


@pytest.fixture(scope="module")
def page(cluster: Cluster) -> dict[str, list[dict[str, Any]]]:
    """The example's Pods by component; the client has none (``""``)."""
    cluster.podwire("apply", "-f", f"{installation()}/examples/page")
    pods: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for pod in cluster.ready():
        if pod["metadata"]["labels"].get("app") == "demo":
            pods[pod["metadata"]["labels"].get("component", "")].append(pod)
    return pods


def test_a_pod_sees_another_pods_address(cluster: Cluster, page: dict[str, list[dict[str, Any]]]) -> None:
    [client] = page[""]
    homes = {server["spec"]["nodeName"] == client["spec"]["nodeName"] for server in page["users"]}
    assert homes == {True, False}, "servers on the client's node and on others"
    for server in page["users"]:
        [answer] = cluster.fetch("pod/default/client", f"http://{server['status']['podIP']}:9376/")
        assert answer["caller"]["address"] == client["status"]["podIP"]
        assert answer["pod"]["name"] == server["metadata"]["name"]


def test_a_service_spreads_over_all_its_pods(cluster: Cluster, page: dict[str, list[dict[str, Any]]]) -> None:
    service = cluster.get("service", "users")
    answers = cluster.fetch("pod/default/client", f"http://{service['spec']['clusterIP']}:8080/", 80)
    counts = collections.Counter(answer["pod"]["name"] for answer in answers)
    assert set(counts) == {pod["metadata"]["name"] for pod in page["users"]}
    # 80 draws from 4: fewer than 5 for one of them has a chance of about 1 in 25,000.
    assert min(counts.values()) >= 5


def test_a_service_that_prefers_near_endpoints_stays_in_the_clients_zone(cluster: Cluster, page: dict[str, list[dict[str, Any]]]) -> None:
    [client] = page[""]
    zone = cluster.get("node", client["spec"]["nodeName"])["metadata"]["labels"]["topology.kubernetes.io/zone"]
    ports, selector = [{"port": 8080, "targetPort": 9376}], {"app": "demo", "component": "users"}
    spec = {"selector": selector, "ports": ports, "trafficDistribution": "PreferSameZone"}
    near = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "near"}, "spec": spec}
    cluster.podwire("apply", "-f", "-", stdin=json.dumps(near))

    def hinted() -> bool:
        slices = cluster.get("endpointslices", "-l", "kubernetes.io/service-name=near")["items"]
        return bool(slices) and all(one["hints"]["forZones"] for one in slices[0]["endpoints"])

    until(hinted, "hints for zones")
    url = f"http://{cluster.get('service', 'near')['spec']['clusterIP']}:8080/"
    until(lambda: {answer["zone"] for answer in cluster.fetch("pod/default/client", url, 30)} == {zone}, f"answers from {zone} alone")
    assert len({answer["zone"] for answer in cluster.fetch("pod/default/client", "http://users:8080/", 60)}) == 3


def test_services_have_names(cluster: Cluster, page: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("users", "users.default", "users.default.svc", "users.default.svc.cluster.local"):
        [answer] = cluster.fetch("pod/default/client", f"http://{name}:8080/path?query")
        assert answer["pod"]["name"].startswith("users-")
        assert answer["path"].startswith("/path")
        assert answer["host"].startswith(name)


def test_a_client_on_the_internet_reaches_the_load_balancer_through_any_node(
    cluster: Cluster, page: dict[str, list[dict[str, Any]]]
) -> None:
    balancer = cluster.balancer("default/frontend")
    assert cluster.get("service", "frontend")["status"]["loadBalancer"]["ingress"][0]["ip"] == balancer["address"]
    homes = {pod["spec"]["nodeName"] for pod in page["frontend"]}
    nodes = {entry["address"]: node["metadata"]["name"] for node in cluster.get("nodes")["items"] for entry in node["status"]["addresses"]}
    answers = cluster.fetch("internet", f"http://{balancer['address']}/", 60)
    through = {nodes.get(answer["caller"]["address"]) for answer in answers}
    assert through - homes - {None}, "some came through a node that runs no frontend Pod"
    assert {answer["pod"]["name"] for answer in answers} == {pod["metadata"]["name"] for pod in page["frontend"]}


def test_a_client_on_the_internet_reaches_nothing_else(cluster: Cluster, page: dict[str, list[dict[str, Any]]]) -> None:
    balancer = cluster.balancer("default/frontend")
    service = cluster.get("service", "frontend")
    node_ip = cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    pod_ip = page["frontend"][0]["status"]["podIP"]
    node_port = service["spec"]["ports"][0]["nodePort"]
    closed = [
        f"http://{balancer['address']}:81/",
        f"http://{service['spec']['clusterIP']}/",
        f"http://{pod_ip}:8080/",
        f"http://{node_ip}:{node_port}/",
    ]
    for url in closed:
        done = cluster.exec(
            "internet", cluster.user.python, "-c", f"import urllib.request; urllib.request.urlopen({url!r}, timeout=0.5)", status=1
        )
        assert "timed out" in done.stderr or "refused" in done.stderr or "unreachable" in done.stderr, done.stderr
    # The control: the same door, from inside.
    assert cluster.fetch("node/" + page["users"][0]["spec"]["nodeName"], f"http://{node_ip}:{node_port}/")[0]["pod"]


def test_the_load_balancer_is_published_on_this_machine(cluster: Cluster, page: dict[str, list[dict[str, Any]]]) -> None:
    [url] = cluster.balancer("default/frontend")["urls"]
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url, timeout=5) as answer:
        assert json.load(answer)["pod"]["name"].startswith("frontend-")
