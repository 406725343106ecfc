"""Who has which Service address: ServiceCIDR and IPAddress objects go with what is given out."""

from __future__ import annotations

import http.client
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from running_apiserver import ApiServer, start

Tree = dict[str, Any]
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"
LIMIT_S = 20.0


def service(name: str, **spec: Any) -> Tree:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def test_the_range_of_services_is_an_object(call: Any) -> None:
    tree = call("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes").tree
    assert tree["spec"]["cidrs"] == ["10.8.0.0/20"]
    assert tree["metadata"]["finalizers"] == ["networking.k8s.io/service-cidr-finalizer"]
    condition = tree["status"]["conditions"][0]
    assert (condition["type"], condition["status"]) == ("Ready", "True")
    first = call("GET", f"{ADDRESSES}/10.8.0.1").tree
    assert first["spec"]["parentRef"] == {"resource": "services", "namespace": "default", "name": "kubernetes"}


def test_a_cluster_ip_comes_and_goes_with_its_service(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    made = call("POST", path, service("a")).tree
    address = made["spec"]["clusterIP"]
    held = call("GET", f"{ADDRESSES}/{address}").tree
    assert held["spec"]["parentRef"] == {"resource": "services", "namespace": namespace, "name": "a"}
    assert held["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    # Made and gone together, in one revision.
    assert held["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    call("PATCH", f"{path}/a", {"metadata": {"labels": {"x": "y"}}}, content_type="application/merge-patch+json")
    assert call("GET", f"{ADDRESSES}/{address}").tree == held
    external = {"spec": {"type": "ExternalName", "externalName": "a.example", "clusterIP": None, "clusterIPs": None}}
    assert call("PATCH", f"{path}/a", external, content_type="application/merge-patch+json").status == 200
    assert call("GET", f"{ADDRESSES}/{address}").status == 404
    back = {"spec": {"type": "ClusterIP", "externalName": None, "clusterIP": address}}
    assert call("PATCH", f"{path}/a", back, content_type="application/merge-patch+json").status == 200
    assert call("GET", f"{ADDRESSES}/{address}").status == 200
    assert call("DELETE", f"{path}/a").status == 200
    assert call("GET", f"{ADDRESSES}/{address}").status == 404


def test_nothing_is_held_for_headless_services_and_dry_runs(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    before = {one["metadata"]["name"] for one in call("GET", ADDRESSES).tree["items"]}
    assert call("POST", path, service("none", clusterIP="None")).status == 201
    assert call("POST", f"{path}?dryRun=All", service("dry")).status == 201
    assert {one["metadata"]["name"] for one in call("GET", ADDRESSES).tree["items"]} == before


def test_an_address_that_somebody_keeps_is_given_to_no_service(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    kept = {"metadata": {"name": "10.8.0.77"}, "spec": {"parentRef": {"group": "example.com", "resource": "things", "name": "t"}}}
    assert call("POST", ADDRESSES, kept).status == 201
    refused = call("POST", path, service("b", clusterIP="10.8.0.77"))
    assert refused.status == 422
    assert "provided IP is already allocated" in refused.tree["message"]
    assert call("DELETE", f"{ADDRESSES}/10.8.0.77").status == 200
    assert call("POST", path, service("b", clusterIP="10.8.0.77")).status == 201
    assert call("POST", ADDRESSES, kept).status == 409
    outside = kept | {"metadata": {"name": "192.0.2.1"}}
    assert call("POST", ADDRESSES, outside).status == 201
    assert call("DELETE", f"{ADDRESSES}/192.0.2.1").status == 200


def test_one_that_is_deleted_by_hand_comes_back_and_its_address_stays_taken(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    address = call("POST", path, service("c")).tree["spec"]["clusterIP"]
    assert call("DELETE", f"{ADDRESSES}/{address}").status == 200
    assert call("POST", path, service("d", clusterIP=address)).status == 422
    end = time.monotonic() + LIMIT_S
    while call("GET", f"{ADDRESSES}/{address}").status == 404 and time.monotonic() < end:
        pass
    assert call("GET", f"{ADDRESSES}/{address}").tree["spec"]["parentRef"]["name"] == "c"


def test_deleting_all_services_of_a_namespace_frees_their_addresses(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/services"
    given = [call("POST", path, service(f"s{number}")).tree["spec"]["clusterIP"] for number in range(3)]
    assert call("DELETE", path).status == 200
    assert [call("GET", f"{ADDRESSES}/{address}").status for address in given] == [404] * 3


def test_kubectl_shows_them(kubectl: Any) -> None:
    ranges = [line.split()[:2] for line in kubectl("get", "servicecidrs").stdout.splitlines()]
    assert ranges == [["NAME", "CIDRS"], ["kubernetes", "10.8.0.0/20"]]
    rows = [line.split()[:2] for line in kubectl("get", "ip").stdout.splitlines()]
    assert rows[0] == ["NAME", "PARENTREF"]
    assert ["10.8.0.1", "services/default/kubernetes"] in rows


def test_what_is_kept_stays_kept_after_a_crash() -> None:
    with tempfile.TemporaryDirectory(prefix="api") as folder:
        running: ApiServer = start(Path(folder))
        try:
            _crash(running)
        finally:
            running.stop()
            running.listener.close()


def _crash(running: ApiServer) -> None:
    def post(path: str, tree: Tree) -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", running.port, context=running.context(), timeout=LIMIT_S)
        connection.request("POST", path, json.dumps(tree), {"content-type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        return status

    kept = {"metadata": {"name": "10.8.0.77"}, "spec": {"parentRef": {"group": "example.com", "resource": "things", "name": "t"}}}
    assert post(ADDRESSES, kept) == 201
    assert post("/api/v1/namespaces/default/services", service("x", clusterIP="10.8.0.78")) == 201
    assert post(RANGES, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.77.0.0/24"]}}) == 201
    assert post("/api/v1/namespaces/default/services", service("z", clusterIP="10.77.0.10")) == 201
    running.kill()
    running.run()
    for address in ("10.8.0.77", "10.8.0.78", "10.77.0.10"):
        assert post("/api/v1/namespaces/default/services", service("y", clusterIP=address)) == 422
    assert post("/api/v1/namespaces/default/services", service("y", clusterIP="10.8.0.79")) == 201
    assert post("/api/v1/namespaces/default/services", service("w", clusterIP="10.77.0.11")) == 201
