"""How workloads are printed.

Source: the printed columns of ``kubectl get deployments``, ``replicasets`` and their kin
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import NONE, age, duration, instant, pairs, selector
from podwire.apiserver.kind import AGE, NAME, Column, Tree

_CONTAINERS = Column("Containers", priority=1, description="The names of the containers.")
_IMAGES = Column("Images", priority=1, description="The images of the containers.")
_SELECTOR = Column("Selector", priority=1, description="The labels of the Pods.")


def _number(name: str, description: str) -> Column:
    return Column(name, "integer", description=description)


DEPLOYMENT_COLUMNS = (
    NAME,
    Column("Ready", description="The number of Pods that are ready, of those wanted."),
    _number("Up-to-date", "The number of Pods of the present template."),
    _number("Available", "The number of Pods that have been ready for long enough."),
    AGE,
    _CONTAINERS,
    _IMAGES,
    _SELECTOR,
)
REPLICA_COLUMNS = (
    NAME,
    _number("Desired", "The number of Pods wanted."),
    _number("Current", "The number of Pods that there are."),
    _number("Ready", "The number of Pods that are ready."),
    AGE,
    _CONTAINERS,
    _IMAGES,
    _SELECTOR,
)
STATEFUL_COLUMNS = (NAME, Column("Ready", description="The number of Pods that are ready, of those wanted."), AGE, _CONTAINERS, _IMAGES)
DAEMON_COLUMNS = (
    NAME,
    _number("Desired", "The number of nodes that should run a Pod."),
    _number("Current", "The number of nodes that run a Pod."),
    _number("Ready", "The number of nodes with a ready Pod."),
    _number("Up-to-date", "The number of nodes with a Pod of the present template."),
    _number("Available", "The number of nodes with an available Pod."),
    Column("Node Selector", description="The labels of the nodes."),
    AGE,
    _CONTAINERS,
    _IMAGES,
    _SELECTOR,
)
JOB_COLUMNS = (
    NAME,
    Column("Status", description="What the Job is doing."),
    Column("Completions", description="The number of Pods that have succeeded, of those wanted."),
    Column("Duration", description="How long the Job ran."),
    AGE,
    _CONTAINERS,
    _IMAGES,
    _SELECTOR,
)
CRON_JOB_COLUMNS = (
    NAME,
    Column("Schedule", description="When Jobs are made."),
    Column("Timezone", description="The time zone of the schedule."),
    Column("Suspend", "boolean", description="Whether it rests."),
    _number("Active", "The number of Jobs that run."),
    Column("Last Schedule", description="When the last Job was made."),
    AGE,
    _CONTAINERS,
    _IMAGES,
    _SELECTOR,
)


def _name_and_age(tree: Tree, now: datetime) -> tuple[str, str]:
    return tree["metadata"]["name"], age(tree["metadata"].get("creationTimestamp"), now)


def _containers(template: Tree) -> list[Any]:
    containers = template.get("spec", {}).get("containers", ())
    return [",".join(str(one.get(key, "")) for one in containers) for key in ("name", "image")]


def deployment_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    name, since = _name_and_age(tree, now)
    return [
        name,
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        since,
        *_containers(spec.get("template", {})),
        selector(spec.get("selector")),
    ]


def replica_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    name, since = _name_and_age(tree, now)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name, *counts, since, *_containers(spec.get("template", {})), selector(spec.get("selector"))]


CONTROLLER_REVISION_COLUMNS = (
    NAME,
    Column("Controller", description="Whose template it is or was."),
    _number("Revision", "Which one in the order of changes."),
    AGE,
)


def controller_revision_row(tree: Tree, now: datetime) -> list[Any]:
    name, since = _name_and_age(tree, now)
    owner = next((one for one in tree["metadata"].get("ownerReferences", ()) if one.get("controller")), None)
    group = owner["apiVersion"].partition("/")[0] if owner is not None and "/" in owner["apiVersion"] else ""
    whose = f"{owner['kind'].lower()}{'.' if group else ''}{group}/{owner['name']}" if owner is not None else NONE
    return [name, whose, tree.get("revision", 0), since]


def replication_controller_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    name, since = _name_and_age(tree, now)
    counts = [spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0)]
    return [name, *counts, since, *_containers(spec.get("template", {})), pairs(spec.get("selector"))]


def stateful_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    name, since = _name_and_age(tree, now)
    return [name, f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}", since, *_containers(spec.get("template", {}))]


def daemon_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    name, since = _name_and_age(tree, now)
    keys = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable")
    template = spec.get("template", {})
    nodes = pairs(template.get("spec", {}).get("nodeSelector"))
    return [name, *(status.get(key, 0) for key in keys), nodes, since, *_containers(template), selector(spec.get("selector"))]


def job_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    name, since = _name_and_age(tree, now)
    done, parallel = status.get("succeeded", 0), spec.get("parallelism", 1)
    wanted = f"{done}/{spec['completions']}" if "completions" in spec else f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"
    return [
        name,
        _job_state(tree),
        wanted,
        _ran(status, now),
        since,
        *_containers(spec.get("template", {})),
        selector(spec.get("selector")),
    ]


def _job_state(tree: Tree) -> str:
    status = tree.get("status", {})
    holds = {one.get("type") for one in status.get("conditions", ()) if one.get("status") == "True"}
    for condition, word in (("Complete", "Complete"), ("Failed", "Failed")):
        if condition in holds:
            return word
    if tree["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for condition, word in (("Suspended", "Suspended"), ("FailureTarget", "FailureTarget"), ("SuccessCriteriaMet", "SuccessCriteriaMet")):
        if condition in holds:
            return word
    return "Running"


def _ran(status: Tree, now: datetime) -> str:
    begun, ended = instant(status.get("startTime")), instant(status.get("completionTime"))
    return "" if begun is None else duration(((ended or now) - begun).total_seconds())


def cron_job_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    name, since = _name_and_age(tree, now)
    job = spec.get("jobTemplate", {}).get("spec", {})
    last = status.get("lastScheduleTime")
    return [
        name,
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active", ())),
        age(last, now) if last else NONE,
        since,
        *_containers(job.get("template", {})),
        selector(job.get("selector")),
    ]
