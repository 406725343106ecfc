"""Images that nodes pull from a registry on the machine itself: reached by those who may pull, and nothing else of the machine is."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from e2e.lab import Cluster, User, a_cluster, until
from image_archives import BUSYBOX, busybox, layout
from image_registry import a_registry

pytestmark = pytest.mark.skipif(
    not os.environ.get("CI") and (not os.path.exists(BUSYBOX) or not shutil.which("skopeo")), reason="busybox-static or skopeo is missing"
)
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 1
  imagePullSecrets: [{{name: registry}}]
  containers: [{{name: main, image: "{image}", imagePullPolicy: {policy}, command: [sh, -c, "cat /www/index.html; exec sleep 1000"]}}]
"""
_CONNECT = """
import json, socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)
    print("connected")
except OSError as error:
    print(error.strerror)
asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
asking.connect("/run/podwire/control.sock")
for registry in sys.argv[2:]:
    asking.send(json.dumps({"request": "connect", "registry": registry}).encode())
    answer, descriptors, _, _ = socket.recv_fds(asking, 1000, 1)
    print(len(descriptors), json.loads(answer).get("error", ""))
"""


def test_nodes_pull_from_a_registry_of_the_machine(user: User) -> None:
    images = {"shop/tool:1": layout(busybox(), "")}
    with (
        a_registry(images, "me:word") as (address, asked),
        a_registry(images) as (other, asked_other),
        a_registry(images, elsewhere=other) as (leads_away, asked_there),
    ):
        registry, elsewhere, sly = (f"localhost:{one.rpartition(':')[2]}" for one in (address, other, leads_away))
        file = user.home / "cluster.yaml"
        file.write_text(
            json.dumps({"apiVersion": "podwire.dev/v1alpha1", "kind": "Cluster", "spec": {"registries": [f"{registry}/shop", sly]}})
        )
        file.chmod(0o644)
        with a_cluster(user, "pulls", "-f", str(file), "--zones", "1") as cluster:
            words = ("secret", "docker-registry", "registry", f"--docker-server={registry}", "--docker-username=me")
            cluster.kubectl("create", *words, "--docker-password=word")
            _pulled(cluster, registry, asked)
            _nothing_else_is_reached(cluster, user, registry, elsewhere)
            # Nor does a registry that is named lead there.
            cluster.kubectl("apply", "-f", "-", stdin=POD.format(name="led", image=f"{sly}/shop/tool:1", policy="Always"))
            until(lambda: _reason(cluster, "led") in {"ErrImagePull", "ImagePullBackOff"}, "the pull fails")
            assert any("/blobs/" in path for path in asked_there)
            assert asked_other == []
            user.podwire("image", "pull", f"{sly}/shop/tool:1")  # as the person on the machine does: it does lead there
            assert any("/blobs/" in path for path in asked_other)
            cluster.podwire("down", "--keep")
            cluster.user.podwire("up", "--name", cluster.name)
            cluster.kubectl("apply", "-f", "-", stdin=POD.format(name="later", image=f"{registry}/shop/tool:1", policy="Always"))
            cluster.kubectl("wait", "pod/later", "--for=condition=Ready", "--timeout=60s")
            store = Path(user.home, ".local/state/podwire/images")
            assert store.stat().st_mode & 0o777 == 0o700
            assert os.listdir(store / "pulls") == []
    _closed_registry(user, registry)


def _pulled(cluster: Cluster, registry: str, asked: list[str]) -> None:
    for name, policy in (("first", "IfNotPresent"), ("second", "Always")):
        asked.clear()
        cluster.kubectl("apply", "-f", "-", stdin=POD.format(name=name, image=f"{registry}/shop/tool:1", policy=policy))
        cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        assert "/v2/shop/tool/manifests/1" in asked
        until(lambda name=name: cluster.kubectl("logs", name).stdout == "from the image\n", "what the image holds")
    events = "".join(cluster.kubectl("get", "events", "--field-selector=involvedObject.name=first").stdout)
    for words in (f'Pulling image "{registry}/shop/tool:1"', f'Successfully pulled image "{registry}/shop/tool:1" in '):
        assert words in events


def _nothing_else_is_reached(cluster: Cluster, user: User, registry: str, elsewhere: str) -> None:
    """No port of the machine is open in the lab, and the lab hands out no connection but to the registry that is named."""
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    port = registry.rpartition(":")[2]
    refused = [elsewhere, f"127.0.0.1:{port}", "localhost:1", "", "example.com:80"]
    lines = cluster.exec(f"node/{node}", user.python, "-S", "-c", _CONNECT, port, registry, *refused).stdout.splitlines()
    assert lines[:2] == ["Connection refused", "1 "]
    assert lines[2:] == [f"0 the Cluster names no registry {one}" for one in refused]


def _closed_registry(user: User, registry: str) -> None:
    """What a user reads whose registry does not run."""
    file = user.home / "cluster.yaml"
    with a_cluster(user, "closed", "-f", str(file), "--zones", "1") as cluster:
        cluster.kubectl("apply", "-f", "-", stdin=POD.format(name="waits", image=f"{registry}/shop/tool:2", policy="IfNotPresent"))
        until(lambda: _reason(cluster, "waits") in {"ErrImagePull", "ImagePullBackOff"}, "the pull fails")
        waiting = cluster.get("pod", "waits")["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        assert f"pull {registry}/shop/tool:2: connect to {registry} of the machine: Connection refused" in waiting


def _reason(cluster: Cluster, pod: str) -> str:
    statuses = cluster.get("pod", pod)["status"].get("containerStatuses", [])
    return str(statuses[0]["state"].get("waiting", {}).get("reason")) if statuses else ""
