"""The node's own pages: its Pods, what can truly be told of their use, metrics.

There are no control groups here to count for each container: what containers and the node use is read of their processes
(``usage.py``), and the kernel counts the network interfaces of the node and of each Pod.

Source: https://kubernetes.io/docs/reference/instrumentation/node-metrics/
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from podwire.linux import namespaces
from podwire.pods.kubelet import resources
from podwire.pods.kubelet.usage import NODE, Measured
from podwire.pods.runs import State
from podwire.pods.worker import PodWorker

Tree = dict[str, Any]


def _stamp(seconds: float | None = None) -> str:
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _interfaces(text: str) -> list[Tree]:
    """The counters in /proc/net/dev."""
    found = []
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        values = [int(word) for word in numbers.split()]
        if name.strip() != "lo":
            counted = {"rxBytes": values[0], "rxErrors": values[2], "txBytes": values[8], "txErrors": values[10]}
            found.append({"name": name.strip(), **counted})
    return found


def _counted(namespace: int | None) -> list[Tree]:
    def look() -> str:
        return Path("/proc/thread-self/net/dev").read_text()

    try:
        return _interfaces(look() if namespace is None else namespaces.inside(namespace, look))
    except OSError:
        return []


def _network(found: list[Tree]) -> Tree:
    first: Mapping[str, Any] = next((one for one in found if one["name"] == "eth0"), found[0] if found else {})
    return {"time": _stamp(), **first, "interfaces": found}


def summary(node: str, workers: Iterable[PodWorker], began: float, measured: Measured) -> Tree:
    """/stats/summary."""
    times = os.times()
    pods = []
    for worker in workers:
        pod, runs = worker.pod, worker.record.runs
        containers = [
            {"name": name, "startTime": _stamp(run.started_at), **_use(measured, f"{worker.record.uid}/{name}")}
            for name, run in sorted(runs.items())
            if run.state is State.RUNNING
        ]
        stats: Tree = {
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": worker.record.uid},
            "startTime": _stamp(worker.record.start_time),
            "containers": containers,
        }
        if worker.namespace is not None and not pod.spec.host_network:
            stats["network"] = _network(_counted(worker.namespace))
        pods.append(stats)
    own = {"time": _stamp(), "usageCoreNanoSeconds": int((times.user + times.system) * 1e9)}
    system = [{"name": "kubelet", "startTime": _stamp(began), "cpu": own}]
    return {
        "node": {
            "nodeName": node,
            "startTime": _stamp(began),
            "systemContainers": system,
            "network": _network(_counted(None)),
            **_use(measured, NODE),
        },
        "pods": pods,
    }


def _use(measured: Measured, name: str) -> Tree:
    return resources.stats(measured.usage[name]) if name in measured.usage else {}


def metrics(node: str, workers: Iterable[PodWorker], began: float) -> str:
    """/metrics, with upstream's names."""
    running = sum(1 for worker in workers if worker.namespace is not None)
    states = dict.fromkeys(State, 0)
    for worker in workers:
        for run in worker.record.runs.values():
            states[run.state] += 1
    times = os.times()
    lines = [
        "# TYPE kubelet_node_name gauge",
        f'kubelet_node_name{{node="{node}"}} 1',
        "# TYPE kubelet_running_pods gauge",
        f"kubelet_running_pods {running}",
        "# TYPE kubelet_running_containers gauge",
        f'kubelet_running_containers{{container_state="running"}} {states[State.RUNNING]}',
        f'kubelet_running_containers{{container_state="exited"}} {states[State.TERMINATED]}',
        "# TYPE process_cpu_seconds_total counter",
        f"process_cpu_seconds_total {times.user + times.system:.2f}",
        "# TYPE process_start_time_seconds gauge",
        f"process_start_time_seconds {began:.2f}",
    ]
    return "\n".join(lines) + "\n"


def interface_metrics(workers: Iterable[PodWorker]) -> str:
    """/metrics/cadvisor: the network's counters of each Pod, with cAdvisor's names."""
    rows: dict[str, list[str]] = {}
    for worker in workers:
        if worker.namespace is None or worker.pod.spec.host_network:
            continue
        for one in _counted(worker.namespace):
            labels = f'interface="{one["name"]}",namespace="{worker.pod.namespace}",pod="{worker.pod.name}"'
            for key, metric in (("rxBytes", "receive_bytes"), ("txBytes", "transmit_bytes"), ("rxErrors", "receive_errors")):
                rows.setdefault(f"container_network_{metric}_total", []).append(f"{{{labels}}} {one[key]}")
    return "".join(f"# TYPE {name} counter\n" + "".join(f"{name}{row}\n" for row in found) for name, found in sorted(rows.items()))
