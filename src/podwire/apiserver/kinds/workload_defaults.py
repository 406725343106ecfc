"""What the API fills into workloads: Deployments, ReplicaSets and their kin.

Here: changes in place that only add. Not here: the Pod template's own (``pod_defaults.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/
"""

from __future__ import annotations

from podwire.apiserver.kind import Tree
from podwire.apiserver.kinds.pod_defaults import default_template


def _template(spec: Tree) -> None:
    default_template(spec.setdefault("template", {}))


def default_deployment(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    _template(spec)
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def default_replica_set(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    _template(spec)
    spec.setdefault("replicas", 1)


def default_replication_controller(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    _template(spec)
    spec.setdefault("replicas", 1)
    labels = spec["template"].get("metadata", {}).get("labels")
    if labels:
        spec.setdefault("selector", dict(labels))
        tree["metadata"].setdefault("labels", dict(labels))


def default_stateful_set(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    _template(spec)
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
    spec.setdefault("revisionHistoryLimit", 10)
    retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
    retention.setdefault("whenDeleted", "Retain")
    retention.setdefault("whenScaled", "Retain")
    for claim in spec.get("volumeClaimTemplates", ()):
        claim.setdefault("apiVersion", "v1")
        claim.setdefault("kind", "PersistentVolumeClaim")
        claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
        claim["status"] = {"phase": "Pending"}


def default_daemon_set(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    _template(spec)
    strategy = spec.setdefault("updateStrategy", {})
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)
    spec.setdefault("revisionHistoryLimit", 10)


def default_job(tree: Tree) -> None:
    _default_job_spec(tree.setdefault("spec", {}))


def _default_job_spec(spec: Tree) -> None:
    _template(spec)
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6 if "backoffLimitPerIndex" not in spec else 2147483647)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    for rule in spec.get("podFailurePolicy", {}).get("rules", ()):
        for pattern in rule.get("onPodConditions", ()):
            pattern.setdefault("status", "True")


def default_cron_job(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    default_template(spec.setdefault("jobTemplate", {}).setdefault("spec", {}).setdefault("template", {}))
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
