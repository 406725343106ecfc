"""The subresource ``resize`` of Pods: what may change through it, and what may not."""

from __future__ import annotations

from typing import Any

import pytest


def container(name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "x"} | more


def asks(**requests: str) -> dict[str, Any]:
    return {"resources": {"requests": requests}}


@pytest.fixture
def pod(call: Any, namespace: str) -> str:
    spec = {
        "containers": [container(**asks(cpu="100m", memory="10Mi"))],
        "initContainers": [container("i", **asks(cpu="1m")), container("s", restartPolicy="Always", **asks(cpu="1m"))],
    }
    got = call("POST", f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": "p"}, "spec": spec})
    assert got.status in (201, 409), got
    return f"/api/v1/namespaces/{namespace}/pods/p"


def patch(call: Any, path: str, spec: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    got = call("PATCH", path, {"spec": spec}, content_type="application/strategic-merge-patch+json")
    return got.status, got.tree


def test_resources_change_through_it_alone(call: Any, pod: str) -> None:
    wanted = {"containers": [{"name": "c", **asks(cpu="200m")}], "initContainers": [{"name": "s", **asks(cpu="2m")}]}
    status, refused = patch(call, pod, wanted)
    assert (status, refused["reason"]) == (422, "Invalid")
    status, found = patch(call, f"{pod}/resize", wanted)
    assert status == 200, found
    assert found["metadata"]["generation"] == 2
    assert found["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "200m", "memory": "10Mi"}
    assert found["spec"]["containers"][0]["resizePolicy"] == [
        {"resourceName": "cpu", "restartPolicy": "NotRequired"},
        {"resourceName": "memory", "restartPolicy": "NotRequired"},
    ]
    assert "resizePolicy" not in found["spec"]["initContainers"][0]
    assert found["spec"]["initContainers"][1]["resources"]["requests"] == {"cpu": "2m"}
    assert call("GET", f"{pod}/resize").tree == call("GET", pod).tree == found
    assert call("PUT", f"{pod}/resize", found).tree["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"containers": [{"name": "c", "image": "y"}]}, "spec: Forbidden: only cpu and memory resources are mutable"),
        ({"activeDeadlineSeconds": 5}, "spec: Forbidden: only cpu and memory resources are mutable"),
        (
            {"containers": [{"name": "c", **asks(**{"example.com/gpu": "1"})}]},
            "spec.containers[0].resources: Forbidden: only cpu and memory resources are mutable",
        ),
        (
            {"containers": [{"name": "c", "resources": {"requests": {"cpu": None}}}]},
            "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
        ),
        (
            {"initContainers": [{"name": "i", **asks(cpu="2m")}]},
            "spec.initContainers[0].resources: Forbidden: resources for non-sidecar init containers are immutable",
        ),
        ({"containers": [{"name": "c", **asks(cpu="-1")}]}, "must be greater than or equal to 0"),
    ],
)
def test_what_is_refused(call: Any, pod: str, spec: dict[str, Any], words: str) -> None:
    status, refused = patch(call, f"{pod}/resize", spec)
    assert status == 422, refused
    assert words in refused["message"]


def test_the_quality_of_service_stays(call: Any, namespace: str) -> None:
    spec = {"containers": [container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})]}
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert call("POST", path, {"metadata": {"name": "q"}, "spec": spec}).status == 201
    status, refused = patch(call, f"{path}/q/resize", {"containers": [{"name": "c", **asks(cpu="500m")}]})
    assert status == 422
    assert 'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing' in refused["message"]
    both = {"resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}}}
    assert patch(call, f"{path}/q/resize", {"containers": [{"name": "c", **both}]})[0] == 200
