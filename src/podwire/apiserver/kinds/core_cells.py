"""How nodes, namespaces, events and the small kinds of the core group are printed.

Source: the printed columns of ``kubectl get``
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import NONE, UNKNOWN, age
from podwire.apiserver.kind import AGE, NAME, Column, Tree

NODE_COLUMNS = (
    NAME,
    Column("Status", description="Whether the node is ready, and whether Pods may be placed on it."),
    Column("Roles", description="The roles that its labels name."),
    AGE,
    Column("Version", description="The version of the node's agent."),
    Column("Internal-IP", priority=1, description="The node's address in the network."),
    Column("External-IP", priority=1, description="The node's address on the internet."),
    Column("OS-Image", priority=1, description="The operating system."),
    Column("Kernel-Version", priority=1, description="The kernel."),
    Column("Container-Runtime", priority=1, description="What runs the containers."),
)
NAMESPACE_COLUMNS = (NAME, Column("Status", description="Active, or Terminating."), AGE)
CONFIG_MAP_COLUMNS = (NAME, Column("Data", description="The number of keys."), AGE)
SECRET_COLUMNS = (NAME, Column("Type", description="What the secret is for."), Column("Data", description="The number of keys."), AGE)
SERVICE_ACCOUNT_COLUMNS = (NAME, Column("Secrets", description="The number of secrets."), AGE)
EVENT_COLUMNS = (
    Column("Last Seen", description="When it last happened."),
    Column("Type", description="Normal or Warning."),
    Column("Reason", description="Why, in a word."),
    Column("Object", description="What it happened to."),
    Column("Subobject", priority=1, description="Which part of it."),
    Column("Source", priority=1, description="Who tells."),
    Column("Message", description="What happened."),
    Column("First Seen", priority=1, description="When it first happened."),
    Column("Count", priority=1, description="How often it happened."),
    Column("Name", format="name", priority=1),
)
_ROLE = "node-role.kubernetes.io/"


def _age(tree: Tree, now: datetime) -> str:
    return age(tree["metadata"].get("creationTimestamp"), now)


def node_row(tree: Tree, now: datetime) -> list[Any]:
    """Give the cells of a Node."""
    spec, status = tree.get("spec", {}), tree.get("status", {})
    info = status.get("nodeInfo", {})
    addresses = {one.get("type"): one.get("address") for one in reversed(status.get("addresses", ()))}
    return [
        tree["metadata"]["name"],
        _node_state(spec, status),
        _roles(tree["metadata"].get("labels", {})),
        _age(tree, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _node_state(spec: Tree, status: Tree) -> str:
    states = [one.get("status") for one in status.get("conditions", ()) if one.get("type") == "Ready"]
    word = ("Ready" if states[0] == "True" else "NotReady") if states else "Unknown"
    return word + ",SchedulingDisabled" if spec.get("unschedulable") else word


def _roles(labels: dict[str, str]) -> str:
    roles = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE)} | {labels.get("kubernetes.io/role", "")}
    return ",".join(sorted(roles - {""})) or NONE


def namespace_row(tree: Tree, now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], tree.get("status", {}).get("phase", ""), _age(tree, now)]


def config_map_row(tree: Tree, now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], len(tree.get("data", {})) + len(tree.get("binaryData", {})), _age(tree, now)]


def secret_row(tree: Tree, now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], tree.get("type", ""), len(tree.get("data", {})), _age(tree, now)]


def service_account_row(tree: Tree, now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], len(tree.get("secrets", ())), _age(tree, now)]


def event_row(tree: Tree, now: datetime) -> list[Any]:
    """Give the cells of an Event."""
    series, about, source = tree.get("series"), tree.get("involvedObject", {}), tree.get("source", {})
    first = age(tree.get("firstTimestamp") or tree.get("eventTime"), now)
    last = age(tree["lastTimestamp"], now) if tree.get("lastTimestamp") else first
    count = tree.get("count") or 1
    if series:
        last, count = age(series.get("lastObservedTime"), now), series.get("count", 0)
    kind = about.get("kind", "").lower()
    parts = (source.get("component") or tree.get("reportingComponent", ""), source.get("host") or tree.get("reportingInstance", ""))
    return [
        last,
        tree.get("type", ""),
        tree.get("reason", ""),
        f"{kind}/{about['name']}" if about.get("name") else kind,
        about.get("fieldPath", ""),
        ", ".join(part for part in parts if part),
        tree.get("message", "").strip(),
        first,
        count,
        tree["metadata"]["name"],
    ]
