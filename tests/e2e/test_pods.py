"""Pods as kubectl sees them: a Pod with everything, one that fails, one that waits; and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

from e2e.lab import User, a_cluster, until

EVERYTHING = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {greeting: hello}
---
apiVersion: v1
kind: Pod
metadata: {name: side, labels: {app: side}}
spec:
  terminationGracePeriodSeconds: 4
  initContainers:
  - name: setup
    image: podwire.dev/machine
    command: [sh, -c, "echo ready > /shared/state"]
    volumeMounts: [{name: shared, mountPath: /shared}]
  - name: proxy
    image: podwire.dev/machine
    restartPolicy: Always
    command: [sh, -c, "trap 'exit 0' TERM; python3 -m http.server 8081 -d /shared & while :; do sleep 0.1; done"]
    startupProbe: {httpGet: {path: /state, port: 8081}, periodSeconds: 1, failureThreshold: 30}
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: app
    image: podwire.dev/machine
    command: [sh, -c, "trap 'exit 0' TERM; python3 -m http.server 8080 -d /etc/settings & while :; do sleep 0.1; done"]
    env: [{name: GREETING, valueFrom: {configMapKeyRef: {name: settings, key: greeting}}}]
    readinessProbe: {httpGet: {path: /greeting, port: 8080}, periodSeconds: 1, timeoutSeconds: 5}
    lifecycle: {preStop: {exec: {command: [sh, -c, "until [ -e /shared/go ]; do sleep 0.1; done"]}}}
    volumeMounts: [{name: settings, mountPath: /etc/settings}, {name: shared, mountPath: /shared}]
    ports: [{containerPort: 8080, hostPort: 8123}]
  volumes:
  - {name: shared, emptyDir: {}}
  - {name: settings, configMap: {name: settings}}
---
apiVersion: v1
kind: Service
metadata: {name: side}
spec: {selector: {app: side}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: crash}
spec: {containers: [{name: main, image: podwire.dev/machine, command: [sh, -c, "echo bad > /dev/termination-log; exit 3"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: missing}
spec:
  containers:
  - {name: main, image: podwire.dev/machine, command: [sh, -c, "cat /v/word && sleep 1000"], volumeMounts: [{name: v, mountPath: /v}]}
  volumes: [{name: v, secret: {secretName: absent}}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: main, image: example.com/client}]}
"""
DESCRIBED = (
    'Container image "podwire.dev/machine" already present on machine and can be accessed by the pod',
    "Container created",
    "Container started",
    "      GREETING:  <set to the key 'greeting' of config map 'settings'>",
    "  Initialized                 True",
    "      /etc/settings from settings (rw)",
)


def test_pods_live_and_end_as_pods_do(user: User) -> None:
    with a_cluster(user, "pods", "--zones", "1") as cluster:

        def conditions() -> Any:
            found = cluster.get("endpointslices", "-l", "kubernetes.io/service-name=side")["items"]
            return [endpoint["conditions"] for piece in found for endpoint in piece.get("endpoints") or ()]

        cluster.kubectl("apply", "-f", "-", stdin=EVERYTHING)
        cluster.kubectl("wait", "pod/side", "pod/client", "--for=condition=Ready", "--timeout=60s")
        until(lambda: conditions() == [{"ready": True, "serving": True, "terminating": False}], "the endpoint is ready")
        until(lambda: cluster.kubectl("describe", "pod", "side").stdout.count("Container started") == 3, "three Events")
        described = cluster.kubectl("describe", "pod", "side").stdout
        for words in DESCRIBED:
            assert words in described, described
        host = cluster.get("pod", "side")["status"]["hostIP"]
        script = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=10).read().decode())"
        for url in ("http://side/greeting", f"http://{host}:8123/greeting"):
            asked = cluster.exec("pod/default/client", user.python, "-c", script, url)
            assert asked.stdout.strip() == "hello"
        _a_source_changes(cluster, user, script)
        failed = cluster.kubectl("describe", "pod", "crash").stdout
        assert "Reason:    CrashLoopBackOff" in failed
        assert "Message:   bad" in failed
        assert "Back-off restarting failed container main in pod crash_default(" in failed
        waits = until(lambda: _with(cluster.kubectl("describe", "pod", "missing").stdout, "FailedMount"), "the Event")
        assert 'MountVolume.SetUp failed for volume "v" : secret "absent" not found' in waits
        cluster.kubectl("create", "secret", "generic", "absent", "--from-literal=word=there")
        cluster.kubectl("wait", "pod/missing", "--for=condition=Ready", "--timeout=60s")

        # A Pod that ends serves until its hook lets it go, and its endpoint says so.
        cluster.kubectl("patch", "pod", "side", "-p", json.dumps({"metadata": {"finalizers": ["podwire.dev/kept"]}}))
        cluster.kubectl("delete", "pod", "side", "--wait=false")
        until(lambda: conditions() == [{"ready": False, "serving": True, "terminating": True}], "the endpoint ends")
        until(lambda: cluster.get("pod", "side")["status"]["phase"] == "Succeeded", "the containers have ended")
        status = cluster.get("pod", "side")["status"]
        ends = [one["state"]["terminated"] for one in (*status["initContainerStatuses"], *status["containerStatuses"])]
        assert [end["exitCode"] for end in ends] == [0, 0, 0]
        assert ends[1]["finishedAt"] >= ends[2]["finishedAt"]  # the sidecar after the container that it served
        cluster.kubectl("patch", "pod", "side", "-p", '{"metadata": {"finalizers": null}}')
        cluster.kubectl("wait", "pod/side", "--for=delete", "--timeout=30s")


def _a_source_changes(cluster: Any, user: User, script: str) -> None:
    cluster.kubectl("patch", "configmap", "settings", "-p", '{"data": {"greeting": "goodbye"}}')
    until(
        lambda: cluster.exec("pod/default/client", user.python, "-c", script, "http://side/greeting").stdout.strip() == "goodbye",
        "the file has changed",
    )


def _with(text: str, word: str) -> str:
    return text if word in text else ""
