"""`podwire check`: what reaches what is found with packets, and what does not is said."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from e2e.lab import Cluster, installation, processes_of, until

MANIFESTS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  replicas: 2
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec: {containers: [{name: main, image: echo, ports: [{containerPort: 8080}, {containerPort: 5353, protocol: UDP}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  type: LoadBalancer
  selector: {app: server}
  loadBalancerSourceRanges: [192.0.2.0/24]
  ports: [{name: web, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {containers: [{name: main, image: curlimages/curl, command: [sleep, "1000"]}]}
"""
CHECKS = """
- name: pods-to-pods
  type: k8s
  protocol: tcp
  targetPort: 8080
  timeoutSeconds: 5
  attempts: 3
  exitCode: 0
  src: {k8sResource: {kind: pod, name: client, namespace: checked}}
  dst: {k8sResource: {kind: deployment, name: server, namespace: checked}}
- {name: over-udp, protocol: udp, targetPort: 5353, src: {k8sResource: {kind: deployment, name: server, namespace: checked}},
   dst: {k8sResource: {kind: deployment, name: server, namespace: checked}}, timeoutSeconds: 5}
- {name: by-service, targetPort: 80, src: {k8sResource: {kind: pod, name: client, namespace: checked}},
   dst: {k8sResource: {kind: service, name: server, namespace: checked}}}
- {name: by-name, targetPort: 80, src: {k8sResource: {kind: pod, name: client, namespace: checked}}, dst: {host: {name: server}}}
- {name: nobody-listens, targetPort: 81, expect: refused, attempts: 1, src: {place: vpc},
   dst: {k8sResource: {kind: deployment, name: server, namespace: checked}}}
- {name: no-such-name, targetPort: 80, expect: unknown name, attempts: 1,
   src: {k8sResource: {kind: pod, name: client, namespace: checked}}, dst: {host: {name: nobody}}}
- {name: kept-out, targetPort: 80, exitCode: 1, timeoutSeconds: 1, attempts: 2, src: {place: internet}, dst: {host: {name: BALANCER}}}
"""
WRONG = """
- {name: wrong, targetPort: 82, attempts: 1, src: {place: vpc},
   dst: {k8sResource: {kind: deployment, name: server, namespace: checked}}}
- {name: absent, targetPort: 80, src: {place: vpc},
   dst: {k8sResource: {kind: pod, name: absent, namespace: checked}}}
- {name: open, targetPort: 8080, exitCode: 1, attempts: 1, src: {place: vpc},
   dst: {k8sResource: {kind: deployment, name: server, namespace: checked}}}
"""


def test_checks(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "checked")
    cluster.kubectl("-n", "checked", "apply", "-f", "-", stdin=MANIFESTS)
    cluster.ready("checked")
    balancer = until(lambda: _address(cluster), "an address")
    done = cluster.podwire("check", "-", stdin=CHECKS.replace("BALANCER", balancer))
    lines = done.stdout.splitlines()
    assert lines[-1] == "7 checks, all hold"
    assert [line.split()[:2] for line in lines[:-1]] == [["✔", f"{name}:"] for name in _names(CHECKS)]
    assert lines[0].startswith("  ✔ pods-to-pods: checked/client -> checked/server-")
    assert lines[0].endswith(":8080 (tcp): connected (and 1 more)")
    assert lines[1].endswith(":5353 (udp): connected (and 3 more)")
    assert lines[6].endswith(f"internet -> {balancer}:80 (tcp): no answer")

    done = cluster.podwire("check", "-", stdin=WRONG, status=1)
    lines = done.stdout.splitlines()
    assert lines[0] == "  ✘ wrong: expected: connected"
    assert [line.rpartition(":82 (tcp): ")[2] for line in lines[1:3]] == ["refused", "refused"]
    assert lines[3] == '  ✘ absent: pods "absent" not found'
    assert lines[4] == "  ✘ open: expected: not connected"
    assert lines[-1] == "3 checks, 3 failed"
    told: Any = json.loads(cluster.podwire("check", "-", "-o", "json", stdin=WRONG, status=1).stdout)
    assert [one["holds"] for one in told] == [False, False, False]
    assert {one["outcome"] for one in told[0]["connections"]} == {"refused"}
    refused = cluster.podwire("check", "-", stdin="- {name: a}\n", status=2)
    assert "<stdin>:1: exitCode" not in refused.stderr
    assert "<stdin>:1: " in refused.stderr
    cluster.kubectl("delete", "namespace", "checked", "--timeout=60s")


def _names(text: str) -> list[str]:
    return [part.partition("name: ")[2].split(",")[0].split("\n")[0] for part in text.split("\n- ")[1:]] if text else []


def _address(cluster: Cluster) -> str:
    found = cluster.get("service", "server", "-n", "checked")["status"]["loadBalancer"].get("ingress", [])
    return found[0]["ip"] if found else ""


def test_ctrl_c_ends_checks_in_a_word(cluster: Cluster) -> None:
    silent = (
        "- {name: silent, targetPort: 80, timeoutSeconds: 60, attempts: 3, src: {place: internet}, dst: {host: {name: 203.0.113.254}}}\n"
    )
    file = cluster.user.home / "silent.yaml"
    file.write_text(silent)

    def tries() -> bool:
        for process in processes_of(cluster.user):
            with contextlib.suppress(OSError):
                if b"podwire.cluster.connecting" in _words(process):
                    return len(os.listdir(f"/proc/{process}/task")) > 1
        return False

    command = [f"{installation()}/.venv/bin/podwire", "check", "--name", cluster.name, str(file)]
    with cluster.user.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as doing:
        until(tries, "a connection is tried")
        doing.send_signal(signal.SIGINT)
        said, told = doing.communicate()
    assert (doing.returncode, said, told.strip()) == (130, "", "podwire: interrupted")


def test_ctrl_c_ends_a_dump_in_a_word(cluster: Cluster) -> None:
    folder = cluster.user.home / "cut-short"
    command = [f"{installation()}/.venv/bin/podwire", "dump", "--name", cluster.name, str(folder)]

    def inspects() -> bool:
        return any(b"podwire.cluster.inspection" in _words(process) for process in processes_of(cluster.user))

    with cluster.user.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as doing:
        until(inspects, "a place is inspected")
        doing.send_signal(signal.SIGINT)
        _, told = doing.communicate()
    assert doing.returncode == 130, told
    assert told.strip() == "podwire: interrupted"


def _words(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""
