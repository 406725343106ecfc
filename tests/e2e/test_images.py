"""A web server and its clients from an image of busybox: the same manifests pass with stand-ins and with the image."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from e2e.lab import Cluster, User, a_cluster, until
from image_archives import BUSYBOX, busybox, layout

MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: server
        image: busybox:1.36
        command: [httpd, -f, -v, -p, "8080", -h, /www]
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        livenessProbe: {exec: {command: [cat, /www/index.html]}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: busybox:1.36
    command: [sh, -c, "echo begun; exec sleep 1000"]
---
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: busybox:1.36, stdin: true, tty: true}]
"""

pytestmark = pytest.mark.skipif(not os.environ.get("CI") and not os.path.exists(BUSYBOX), reason="busybox-static is missing")


def _apply(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=MANIFESTS)
    cluster.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
    cluster.kubectl("rollout", "status", "deployment/web", "--timeout=60s")


def test_the_same_manifests_with_stand_ins_and_with_the_image(user: User) -> None:
    archive = layout(busybox(), "docker.io/library/busybox:1.36").write_tar(user.home / "busybox.tar")
    with a_cluster(user, "pictures", "--zones", "1") as cluster:
        _apply(cluster)
        assert json.loads(cluster.kubectl("exec", "client", "--", BUSYBOX, "wget", "-qO-", "http://web/").stdout)["pod"]["name"].startswith(
            "web-"
        )
        cluster.kubectl("delete", "deployment/web", "service/web", "pod/client", "pod/shell")
        cluster.kubectl("wait", "pod", "--all", "--for=delete", "--timeout=30s")

        assert user.podwire("image", "load", str(archive)).stdout == "loaded docker.io/library/busybox:1.36\n"
        assert json.loads(user.podwire("image", "ls", "-o", "json").stdout)[0]["names"] == ["docker.io/library/busybox:1.36"]
        _apply(cluster)
        _a_client_asks(cluster)
        _words_go_in_and_out(cluster, user)
        refused = user.podwire("image", "rm", "busybox:1.36", status=1)
        assert "busybox:1.36 is used by a container that runs" in refused.stderr
        cluster.kubectl("delete", "deployment/web", "service/web", "pod/client", "pod/shell")
        cluster.kubectl("wait", "pod", "--all", "--for=delete", "--timeout=30s")
        removed = user.podwire("image", "rm", "nosuch", "busybox:1.36", status=1)
        assert (removed.stdout, removed.stderr) == ("removed busybox:1.36\n", "podwire: there is no image nosuch\n")
    assert sorted(os.listdir(user.home / ".local/state/podwire/images/layers")) == []


def _a_client_asks(cluster: Cluster) -> None:
    for url in ("http://web/", "http://web.default.svc.cluster.local/index.html"):
        assert cluster.kubectl("exec", "client", "--", "wget", "-qO-", url).stdout == "from the image\n"
    described: Any = cluster.get("pod", "client")
    assert described["status"]["containerStatuses"][0]["imageID"].startswith("sha256:")
    assert described["status"]["containerStatuses"][0]["restartCount"] == 0
    ip = described["status"]["podIP"]
    until(lambda: f"[{ip}]" in cluster.kubectl("logs", "-l", "app=web").stdout or ip in _logs(cluster), "the servers log the client")


def _logs(cluster: Cluster) -> str:
    return str(cluster.kubectl("logs", "-l", "app=web").stdout)


def _words_go_in_and_out(cluster: Cluster, user: User) -> None:
    assert cluster.kubectl("logs", "client").stdout == "begun\n"
    assert cluster.kubectl("exec", "-i", "client", "--", "cat", stdin="there and back").stdout == "there and back"
    assert cluster.kubectl("exec", "client", "--", "sh", "-c", "exit 7", status=7).stdout == ""
    (user.home / "given").write_text("given")
    (user.home / "given").chmod(0o644)
    cluster.kubectl("cp", str(user.home / "given"), "client:/tmp/given")
    cluster.kubectl("cp", "client:/tmp/given", str(user.home / "taken"))
    assert (user.home / "taken").read_text() == "given"
    attached = cluster.kubectl("attach", "-i", "shell", stdin="echo $((6 * 7)) $FROM; exit\n", status=None).stdout
    assert "42 image" in attached + cluster.kubectl("logs", "shell", "--previous", status=None).stdout
