"""What the lab says about itself: processes, and what the agent ``publish`` reports of nodes, Deployments and load balancers.

Pure: values in, one status out. Ready is: every process ready, every planned node Ready and under no pressure, every Deployment of
kube-system available, room in the state directory, and all that has been reported at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SYSTEM_NAMESPACE = "kube-system"
TOPICS = ("nodes", "deployments", "loadBalancers")

Report = dict[str, Any]


@dataclass
class Record:
    """What is known of a process. ``pid`` 0 means that it does not run; ``started`` tells it from a later one of that number.

    ``stopped``: its node is without power, and it is not waited for.
    """

    name: str
    pid: int = 0
    started: int = 0
    ready: bool = False
    done: bool = False
    restarts: int = 0
    last_error: str = ""
    status: str = ""
    stopped: bool = False

    def state_word(self) -> str:
        if self.stopped:
            return "stopped"
        if self.done:
            return "done"
        if not self.pid:
            return "waiting" if not self.last_error else "failed"
        return "ready" if self.ready else "starting"


def merge(known: Mapping[str, Any], fresh: Mapping[str, Any]) -> Report:
    """Replace the topics that a report names; what it does not name stays."""
    return {**known, **{topic: fresh[topic] for topic in TOPICS if topic in fresh}}


def status(
    name: str,
    api_server: str,
    records: Sequence[Record],
    planned_nodes: Iterable[str],
    reported: Mapping[str, Any],
    *,
    degraded: bool = False,
    full: str = "",
) -> Report:
    """Give the status as ``podwire status -o json`` prints it.

    ``degraded``: nodes are stopped or cut off on purpose. Their Pods are bound to them for minutes, so one Pod of a Deployment is enough.
    ``full``: the state directory, where there is no room left: then nothing of the rest can be kept.
    """
    room = [f"the state directory {full} has no room"] if full else []
    waiting = [*room, *_processes(records), *_nodes(planned_nodes, reported), *_deployments(reported, degraded=degraded)]
    return {
        "name": name,
        "ready": not waiting,
        "apiServer": api_server,
        "processes": [_process(record) for record in records],
        "nodes": list(reported.get("nodes", ())),
        "deployments": list(reported.get("deployments", ())),
        "loadBalancers": list(reported.get("loadBalancers", ())),
        "waiting": waiting,
    }


def _process(record: Record) -> Report:
    return {
        "name": record.name,
        "pid": record.pid,
        "state": record.state_word(),
        "restarts": record.restarts,
        "lastError": record.last_error,
        "status": record.status,
    }


def _processes(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        if not (record.ready or record.done or record.stopped):
            why = record.last_error or record.status
            yield f"process {record.name} is {record.state_word()}" + (f" ({why})" if why else "")


def _nodes(planned: Iterable[str], reported: Mapping[str, Any]) -> Iterator[str]:
    known = {node["name"]: node for node in reported.get("nodes", ())}
    for name in planned:
        node = known.get(name)
        if node is None:
            yield f"node {name} is not reported yet"
        elif not node.get("ready"):
            why = node.get("reason", "")
            yield f"node {name} is not ready" + (f" ({why})" if why else "")
        elif pressure := node.get("pressure"):
            yield f"node {name} has {', '.join(pressure)}"


def _deployments(reported: Mapping[str, Any], *, degraded: bool) -> Iterator[str]:
    system = [item for item in reported.get("deployments", ()) if item.get("namespace") == SYSTEM_NAMESPACE]
    if not system:
        yield f"the Deployments of {SYSTEM_NAMESPACE} are not reported yet"
    for item in system:
        wanted = item.get("wanted", 1)
        if item.get("ready", 0) < (min(1, wanted) if degraded else wanted):
            yield f"Deployment {SYSTEM_NAMESPACE}/{item['name']} has {item.get('ready', 0)} of {item.get('wanted', 1)} Pods ready"
