"""How a Pod is printed: how many of its containers are ready, what is up with it, how often it was restarted.

Source: the printed columns of ``kubectl get pods``, https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import NONE, age, instant
from podwire.apiserver.kind import AGE, NAME, Column, Tree

COLUMNS = (
    NAME,
    Column("Ready", description="The number of containers that are ready, of all."),
    Column("Status", description="What the Pod as a whole is doing."),
    Column("Restarts", description="How often containers were restarted, and when last."),
    AGE,
    Column("IP", priority=1, description="The Pod's address."),
    Column("Node", priority=1, description="The node on which the Pod runs."),
    Column("Nominated Node", priority=1, description="The node on which room is being made for the Pod."),
    Column("Readiness Gates", priority=1, description="The number of readiness gates that are open, of all."),
)


def row(tree: Tree, now: datetime) -> list[Any]:
    """Give the cells of a Pod."""
    spec, status, metadata = tree.get("spec", {}), tree.get("status", {}), tree["metadata"]
    ready, reason, restarts, last = _containers(spec, status)
    if metadata.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    total = len(spec.get("containers", ())) + sum(1 for one in spec.get("initContainers", ()) if _is_sidecar(one))
    counted = f"{restarts} ({age(last, now)} ago)" if restarts and last else str(restarts)
    addresses = status.get("podIPs") or [{"ip": status.get("podIP", "")}]
    return [
        metadata["name"],
        f"{ready}/{total}",
        reason,
        counted,
        age(metadata.get("creationTimestamp"), now),
        addresses[0].get("ip") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(spec, status),
    ]


def _is_sidecar(container: Tree) -> bool:
    return container.get("restartPolicy") == "Always"


def _condition(status: Tree, kind: str) -> Tree:
    return next((one for one in status.get("conditions", ()) if one.get("type") == kind), {})


def _is_true(status: Tree, kind: str) -> bool:
    return bool(_condition(status, kind).get("status") == "True")


def _gates(spec: Tree, status: Tree) -> str:
    gates = spec.get("readinessGates", ())
    if not gates:
        return NONE
    return f"{sum(1 for one in gates if _is_true(status, one.get('conditionType', '')))}/{len(gates)}"


def _exit(state: Tree) -> str:
    if state.get("reason"):
        return str(state["reason"])
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def _later(one: str | None, other: str | None) -> str | None:
    first, second = instant(one), instant(other)
    if first is None or second is None:
        return other if first is None else one
    return one if first > second else other


def _ended(status: Tree) -> str | None:
    found: str | None = status.get("lastState", {}).get("terminated", {}).get("finishedAt")
    return found


def _containers(spec: Tree, status: Tree) -> tuple[int, str, int, str | None]:
    """Give how many containers are ready, the Pod's state in a word, the restarts and the time of the last one."""
    reason = status.get("reason") or status.get("phase", "")
    if _condition(status, "PodScheduled").get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    ready, restarts, last, begun, sidecars = _init_containers(spec, status)
    if begun and not _is_true(status, "Initialized"):
        return ready, begun, restarts, last
    restarts, last = sidecars
    running = False
    for one in reversed(status.get("containerStatuses", ())):
        restarts += one.get("restartCount", 0)
        last = _later(last, _ended(one))
        state = one.get("state", {})
        if state.get("waiting", {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif "terminated" in state:
            reason = _exit(state["terminated"])
        elif one.get("ready") and "running" in state:
            running = True
            ready += 1
    if reason == "Completed" and running:
        reason = "Running" if _is_true(status, "Ready") else "NotReady"
    return ready, reason, restarts, last


def _init_containers(spec: Tree, status: Tree) -> tuple[int, int, str | None, str, tuple[int, str | None]]:
    """Give the same of the init containers, a word while they are not done, and the restarts of sidecars."""
    declared = {one.get("name"): one for one in spec.get("initContainers", ())}
    ready, restarts, last = 0, 0, None
    sidecar_restarts, sidecar_last = 0, None
    word = ""
    for index, one in enumerate(status.get("initContainerStatuses", ())):
        sidecar = _is_sidecar(declared.get(one.get("name"), {}))
        restarts += one.get("restartCount", 0)
        last = _later(last, _ended(one))
        if sidecar:
            sidecar_restarts += one.get("restartCount", 0)
            sidecar_last = _later(sidecar_last, _ended(one))
        state = one.get("state", {})
        if "terminated" in state and not state["terminated"].get("exitCode"):
            continue
        if sidecar and one.get("started"):
            ready += 1 if one.get("ready") else 0
            continue
        waiting = state.get("waiting", {}).get("reason", "")
        if "terminated" in state:
            word = "Init:" + _exit(state["terminated"])
        elif waiting and waiting != "PodInitializing":
            word = "Init:" + waiting
        else:
            word = f"Init:{index}/{len(declared)}"
        break
    return ready, restarts, last, word, (sidecar_restarts, sidecar_last)
