"""What the API fills into a Pod, and into the Pod template of a workload, where its writer left it out.

Here: changes in place to plain trees; every one only adds. Not here: what is refused (``pod_validation.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
"""

from __future__ import annotations

import functools
from typing import Any

import orjson

from podwire.apiserver import quantity
from podwire.apiserver.kind import Tree

_TOLERATED_SECONDS = 300

_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "lastProbeTime": None,
    "lastTransitionTime": None,
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}
_SPEC = (
    ("restartPolicy", "Always"),
    ("terminationGracePeriodSeconds", 30),
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
)
_CONTAINER = (("terminationMessagePath", "/dev/termination-log"), ("terminationMessagePolicy", "File"))
_PORT = (("protocol", "TCP"),)
_PROBE = (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3))
_HTTP_GET = (("path", "/"), ("scheme", "HTTP"))
_FIELD_REF = (("apiVersion", "v1"),)


def default_template(template: Tree) -> None:
    """Fill a Pod template."""
    default_spec(template.setdefault("spec", {}))


def default_pod(tree: Tree) -> None:
    """Fill a Pod: what templates get, and what is settled when a Pod is made."""
    spec = tree.setdefault("spec", {})
    default_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for container in _all_containers(spec):
        resources = container["resources"]
        if limits := resources.get("limits"):
            resources["requests"] = {**limits, **resources.get("requests", {})}
    whole = spec.get("resources", {})
    asked = {name for one in spec.get("containers", ()) for name in one["resources"].get("requests", {})}
    if more := {name: amount for name, amount in whole.get("limits", {}).items() if name not in asked}:
        whole["requests"] = {**more, **whole.get("requests", {})}
    sidecars = [one for one in spec.get("initContainers", ()) if one.get("restartPolicy") == "Always"]
    for container in (*sidecars, *spec.get("containers", ())):
        _default_resize_policy(container)


def _default_resize_policy(container: Tree) -> None:
    """What is asked of cpu and memory may change while the container runs."""
    resources = container["resources"]
    stated = {one.get("resourceName") for one in container.get("resizePolicy", ())}
    asked = resources.get("requests", {}).keys() | resources.get("limits", {}).keys()
    more = [{"resourceName": name, "restartPolicy": "NotRequired"} for name in ("cpu", "memory") if name in asked and name not in stated]
    if more:
        container["resizePolicy"] = [*container.get("resizePolicy", ()), *more]


def default_spec(spec: Tree) -> None:
    """Fill the spec of a Pod."""
    _fill(spec, _SPEC)
    spec.setdefault("securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in _all_containers(spec):
        _default_container(container, spec.get("hostNetwork") is True)
    for volume in spec.get("volumes", ()):
        _default_volume(volume)


def _fill(tree: Tree, values: tuple[tuple[str, Any], ...]) -> None:
    for key, value in values:
        found = tree.get(key)
        if found is None or found == "":
            tree[key] = value


def _all_containers(spec: Tree) -> list[Tree]:
    return [one for key in ("initContainers", "containers", "ephemeralContainers") for one in spec.get(key, ())]


def _default_container(container: Tree, host_network: bool) -> None:
    _fill(container, _CONTAINER)
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = "Always" if _is_latest(container.get("image", "")) else "IfNotPresent"
    container.setdefault("resources", {})
    for port in container.get("ports", ()):
        _fill(port, _PORT)
        if host_network and not port.get("hostPort") and port.get("containerPort"):
            port["hostPort"] = port["containerPort"]
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if key in container:
            _default_probe(container[key])
    for hook in container.get("lifecycle", {}).values():
        if isinstance(hook, dict) and "httpGet" in hook:
            _fill(hook["httpGet"], _HTTP_GET)
    for variable in container.get("env", ()):
        source = variable.get("valueFrom", {})
        if "fieldRef" in source:
            _fill(source["fieldRef"], _FIELD_REF)


def _is_latest(image: str) -> bool:
    """Whether an image's name carries the tag ``latest`` or neither tag nor digest."""
    if "@" in image:
        return False
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return tag in ("", "latest")


def _default_probe(probe: Tree) -> None:
    for key, value in _PROBE:
        if not probe.get(key):
            probe[key] = value
    if "httpGet" in probe:
        _fill(probe["httpGet"], _HTTP_GET)
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _default_volume(volume: Tree) -> None:
    if len(volume) == 1 and "name" in volume:
        volume["emptyDir"] = {}
    for key in ("secret", "configMap", "downwardAPI", "projected"):
        if key in volume:
            volume[key].setdefault("defaultMode", 0o644)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    items = list(volume.get("downwardAPI", {}).get("items", ()))
    for source in volume.get("projected", {}).get("sources", ()):
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        items += source.get("downwardAPI", {}).get("items", ())
    for item in items:
        if "fieldRef" in item:
            _fill(item["fieldRef"], _FIELD_REF)


def prepare_new_pod(tree: Tree) -> None:
    """Settle what a new Pod gets beside its defaults: its account, its priority, how long it bears with a lost node, its first status."""
    spec = tree["spec"]
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"] = "default"
    spec.setdefault("priority", 0)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    stated = spec.get("tolerations", [])
    spec["tolerations"] = [
        *stated,
        *(
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _TOLERATED_SECONDS}
            for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
            if not stated or not any(_tolerates(one, key) for one in stated)
        ),
    ]
    tree["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
    if spec.get("schedulingGates"):
        tree["status"]["conditions"] = [dict(_GATED)]


def _tolerates(toleration: Tree, key: str) -> bool:
    return toleration.get("key", "") in (key, "") and toleration.get("effect", "") in ("NoExecute", "")


def qos_class(spec: Tree) -> str:
    """Say how a Pod fares when memory runs short: Guaranteed, Burstable or BestEffort.

    Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
    """
    if spec.get("resources"):  # what is said of the whole Pod counts alone
        return _remembered_class(orjson.dumps([spec["resources"]]))
    containers = [*spec.get("initContainers", ()), *spec.get("containers", ())]
    return _remembered_class(orjson.dumps([container.get("resources", {}) for container in containers]))


def _remembered_class(wanted: bytes) -> str:
    return _class_of(wanted) if len(wanted) <= _REMEMBERED else _class_of.__wrapped__(wanted)


_REMEMBERED = 16 * 1024  # bytes


@functools.lru_cache(maxsize=512)  # Pods of one template ask for the same
def _class_of(wanted: bytes) -> str:
    guaranteed, any_set = True, False
    for resources in orjson.loads(wanted):
        requests, limits = _compute(resources.get("requests")), _compute(resources.get("limits"))
        any_set = any_set or bool(requests) or bool(limits)
        if set(limits) != {"cpu", "memory"} or any(requests.get(key, limits[key]) != limits[key] for key in limits):
            guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _compute(amounts: Tree | None) -> dict[str, Any]:
    """The amounts of cpu and memory that are not zero."""
    found = {key: quantity.value(text) for key, text in (amounts or {}).items() if key in ("cpu", "memory")}
    return {key: amount for key, amount in found.items() if amount}
