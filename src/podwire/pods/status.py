"""A Pod's status, from its object and what is known of its containers. Pure.

The result is a plain JSON tree with every field that the API demands, also where it is false or zero; it is sent as a
strategic merge patch, which leaves other people's conditions alone. Times of transitions are kept where nothing changed.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from podwire.objects.core import Container, Pod
from podwire.objects.quantities import thousandths
from podwire.pods.desired import NodeFacts, is_sidecar, runs_again
from podwire.pods.runs import Ending, Record, Run, State

Tree = dict[str, Any]
_NEW = Run(reason="ContainerCreating")
_NOT_YET = Run(reason="PodInitializing")
_RESOURCES = ("cpu", "memory")
RESIZE = "PodResizePending"
PREEMPTED = "Preempting"
"""The reason of a Pod that has made room for a critical one."""
_PREEMPTED = "Pod was preempted by Kubelet to accommodate a critical pod."


def timestamp(seconds: float) -> str:
    """A time as the API writes it."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def status(pod: Pod, record: Record, facts: NodeFacts, now: float, former: Mapping[str, Any] | None = None) -> Tree:
    """The whole status. ``former`` is the status that was written last, whose transition times are kept where they can be."""
    if is_rejected(record):
        return _rejected(pod, record)
    initialized = is_initialized(pod, record)
    fate = fate_of(pod, record)
    tree: Tree = {
        "observedGeneration": pod.metadata.generation,
        "phase": phase_of(pod, record),
        "reason": (record.finished and record.reason) or None,
        "message": (record.finished and record.message) or None,
        "hostIP": facts.ip,
        "hostIPs": [{"ip": ip} for ip in facts.ips],
        "startTime": timestamp(record.start_time),
        "qosClass": qos_class(pod),
        "conditions": _with_times(_conditions(pod, record, initialized, fate), pod, former, now),
        "containerStatuses": [_container(c, record.runs.get(c.name, first_run(pod)), record) for c in pod.spec.containers],
    }
    ips = facts.ips if pod.spec.host_network else record.addresses
    if ips:
        tree |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    if pod.spec.init_containers:
        runs = ((container, record.runs.get(container.name, _NOT_YET)) for container in pod.spec.init_containers)
        tree["initContainerStatuses"] = [_container(container, run, record, init=True) for container, run in runs]
    if pod.spec.ephemeral_containers:
        tree["ephemeralContainerStatuses"] = [_container(c, record.runs.get(c.name, _NEW), record) for c in pod.spec.ephemeral_containers]
    return tree


def is_rejected(record: Record) -> bool:
    """Whether the node has not taken the Pod: nothing of it was ever begun."""
    return record.finished and bool(record.reason) and not record.sandbox and not record.runs


def _rejected(pod: Pod, record: Record) -> Tree:
    """Nothing is said of containers that never were, nor of conditions but the scheduler's: kubectl shows the reason then."""
    return {
        "observedGeneration": pod.metadata.generation,
        "phase": "Failed",
        "reason": record.reason,
        "message": record.message,
        "startTime": timestamp(record.start_time),
        "qosClass": qos_class(pod),
        "conditions": [],
    }


def first_run(pod: Pod) -> Run:
    """A container before it is started for the first time."""
    return _NOT_YET if pod.spec.init_containers else _NEW


_OVER = frozenset({"Succeeded", "Failed"})

# Phase -----------------------------------------------------------------------------------------------------------------


def init_done(container: Container, record: Record) -> bool:
    """Whether an init container has done its work: ended well, or as a sidecar has started."""
    run = record.runs.get(container.name, _NOT_YET)
    if is_sidecar(container):
        return run.started
    return run.ending is not None and run.ending.exit_code == 0


def is_initialized(pod: Pod, record: Record) -> bool:
    """Whether every init container has done its work. Once that is so it stays so, whatever becomes of a sidecar."""
    return record.initialized or all(init_done(container, record) for container in pod.spec.init_containers)


def init_failed(pod: Pod, record: Record) -> bool:
    """Whether an init container has failed for good."""
    for container in pod.spec.init_containers:
        run = record.runs.get(container.name)
        if run is None or run.ending is None or is_sidecar(container) or run.ending.exit_code == 0:
            continue
        if not runs_again(pod, container, run.ending.exit_code):
            return True
    return False


def is_over(pod: Pod, record: Record) -> bool:
    """Whether every container has ended and none is started again."""
    if init_failed(pod, record):
        return True
    endings = [(container, record.runs.get(container.name, _NEW).ending) for container in pod.spec.containers]
    return all(ending is not None and not runs_again(pod, container, ending.exit_code) for container, ending in endings)


def phase_of(pod: Pod, record: Record) -> str:
    """What is to become of the Pod (``fate_of``); but it is not over while anything of it runs, sidecars and debuggers included."""
    fate = fate_of(pod, record)
    if fate in _OVER and not record.finished and any(run.state is State.RUNNING for run in record.runs.values()):
        return "Running" if is_initialized(pod, record) else "Pending"
    return fate


def fate_of(pod: Pod, record: Record) -> str:
    """Pending until all containers have been started once; then Running until all but the sidecars have ended for good.

    The conditions say so at once, as a kubelet's do, although the phase waits.
    """
    if init_failed(pod, record):
        return "Failed"
    if record.finished:
        if record.reason:
            return "Failed"
        endings = [record.runs.get(container.name, _NEW).ending for container in pod.spec.containers]
        return "Succeeded" if all(ending is not None and ending.exit_code == 0 for ending in endings) else "Failed"
    runs = [record.runs.get(container.name, _NEW) for container in pod.spec.containers]
    if not is_initialized(pod, record) or any((run.started_at == 0 or run.starting) and run.last is None for run in runs):
        return "Pending"
    if is_over(pod, record):
        return "Failed" if any(run.ending is not None and run.ending.exit_code for run in runs) else "Succeeded"
    return "Running"


# Conditions ------------------------------------------------------------------------------------------------------------


def _conditions(pod: Pod, record: Record, initialized: bool, phase: str) -> list[Tree]:
    over = phase in _OVER
    waiting = [] if initialized else [c.name for c in pod.spec.init_containers if not init_done(c, record)]
    unready = [c.name for c in _serving(pod) if not record.runs.get(c.name, _NEW).ready]
    gates = {condition.type: condition.status for condition in pod.status.conditions}
    closed = [gate.condition_type for gate in pod.spec.readiness_gates if gates.get(gate.condition_type) != "True"]
    containers = _condition("ContainersReady", not unready and not over)
    if phase == "Succeeded":
        containers |= {"reason": "PodCompleted"}
    elif phase == "Failed":
        containers |= {"reason": "PodFailed"}
    elif unready:
        containers |= {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
    ready = {**containers, "type": "Ready"}
    if closed and containers["status"] == "True":
        words = [_closed(name, gates.get(name)) for name in closed]
        ready |= {"status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(words)}
    first = _condition("Initialized", initialized)
    if waiting:
        first |= {"reason": "ContainersNotInitialized", "message": f"containers with incomplete status: [{' '.join(waiting)}]"}
    elif phase == "Succeeded":
        first |= {"reason": "PodCompleted"}
    sandbox = _condition("PodReadyToStartContainers", bool(record.sandbox) and not over)
    conditions = [sandbox, first, ready, containers, _condition("PodScheduled", True)]
    if record.unresized[0]:
        conditions.append(_condition(RESIZE, True) | {"reason": record.unresized[0], "message": record.unresized[1]})
    if record.reason == PREEMPTED:
        conditions.append(_condition("DisruptionTarget", True) | {"reason": "TerminationByKubelet", "message": _PREEMPTED})
    return [condition | {"observedGeneration": pod.metadata.generation} for condition in conditions]


def _closed(gate: str, state: str | None) -> str:
    if state is None:
        return f'corresponding condition of pod readiness gate "{gate}" does not exist.'
    return f'the status of pod readiness gate "{gate}" is not "True", but {state}'


def _serving(pod: Pod) -> Iterable[Container]:
    """The containers that must be ready for the Pod to be: sidecars too."""
    return [container for container in pod.spec.init_containers if is_sidecar(container)] + list(pod.spec.containers)


def _condition(kind: str, true: bool) -> Tree:
    return {"type": kind, "status": "True" if true else "False", "reason": None, "message": None}


def _with_times(conditions: list[Tree], pod: Pod, former: Mapping[str, Any] | None, now: float) -> list[Tree]:
    """An absent reason or message is sent as null, which takes away what was there before."""
    if former is not None:
        before = {c["type"]: (c["status"], c["lastTransitionTime"]) for c in former["conditions"]}
    else:
        before = {c.type: (c.status, c.last_transition_time) for c in pod.status.conditions}
    for condition in conditions:
        state, at = before.get(condition["type"], ("", None))
        condition["lastTransitionTime"] = at if at and state == condition["status"] else timestamp(now)
    return conditions


# Containers ------------------------------------------------------------------------------------------------------------


def _container(container: Container, run: Run, record: Record, *, init: bool = False) -> Tree:
    # An init container that has done its work is ready; a sidecar is as other containers are.
    done = init and not is_sidecar(container) and run.ending is not None and run.ending.exit_code == 0
    tree: Tree = {
        "name": container.name,
        "image": container.image,
        "imageID": record.images.get(container.name, ""),
        "ready": run.ready or done,
        "restartCount": run.restarts,
        "started": run.started,
        "state": _state(run),
        "lastState": {"terminated": _terminated(run.last)} if run.last is not None else {},
    }
    if run.container_id:
        tree["containerID"] = run.container_id
    if run.stop_signal:
        tree["stopSignal"] = run.stop_signal
    amounts = record.allocated.get(container.name) or amounts_of(container)
    if amounts["requests"]:
        tree["allocatedResources"] = amounts["requests"]
    if amounts["requests"] or amounts["limits"]:
        tree["resources"] = {kind: amount for kind, amount in amounts.items() if amount}
    return tree


def amounts_of(container: Container) -> dict[str, dict[str, str | int | float]]:
    """What a container asks for, as a record has it."""
    return {"requests": container.resources.requests, "limits": container.resources.limits}


def _state(run: Run) -> Tree:
    if run.state is State.RUNNING and not run.starting:
        return {"running": {"startedAt": timestamp(run.started_at)}}
    if run.state is State.TERMINATED and run.ending is not None:
        return {"terminated": _terminated(run.ending)}
    waiting = {"reason": run.reason or "ContainerCreating"}
    return {"waiting": waiting | ({"message": run.message} if run.message else {})}


def _terminated(ending: Ending) -> Tree:
    tree: Tree = {"exitCode": ending.exit_code, "reason": ending.reason, "finishedAt": timestamp(ending.finished_at)}
    if ending.started_at:
        tree["startedAt"] = timestamp(ending.started_at)
    if ending.signal:
        tree["signal"] = ending.signal
    if ending.message:
        tree["message"] = ending.message
    if ending.container_id:
        tree["containerID"] = ending.container_id
    return tree


# Quality of service ----------------------------------------------------------------------------------------------------


def qos_class(pod: Pod) -> str:
    """Guaranteed, Burstable or BestEffort, by requests and limits of cpu and memory."""
    guaranteed, any_set = True, False
    whole = pod.spec.resources  # what is said of the whole Pod counts alone
    containers = [one.resources for one in (*pod.spec.init_containers, *pod.spec.containers)]
    for asked in containers if whole is None or not (whole.requests or whole.limits) else [whole]:
        for resource in _RESOURCES:
            limit = _amount(asked.limits.get(resource))
            request = _amount(asked.requests.get(resource)) or limit
            any_set = any_set or bool(limit or request)
            guaranteed = guaranteed and bool(limit) and request == limit
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _amount(quantity: str | int | float | None) -> int:
    return 0 if quantity is None else thousandths(quantity)
