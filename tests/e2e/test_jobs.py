"""Jobs whose programs really end as they do: indexes, policies, what may change while they run."""

from __future__ import annotations

import json
from typing import Any

from e2e.lab import Cluster, until

INDEX = "$JOB_COMPLETION_INDEX"


def _job(name: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "a", "image": "podwire.dev/machine", "command": ["sh", "-c", script]}
    template = {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": template, **spec}}


def _indexed(count: int, **more: Any) -> dict[str, Any]:
    return {"completionMode": "Indexed", "completions": count, "parallelism": count, **more}


JOBS = [
    _job("per-index", f"test {INDEX} -lt 2", **_indexed(4, backoffLimitPerIndex=0)),
    _job(
        "fail-index",
        f"test {INDEX} -eq 0 || exit 42",
        **_indexed(
            3,
            backoffLimitPerIndex=5,
            podFailurePolicy={"rules": [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]},
        ),
    ),
    _job("enough", f"test {INDEX} -eq 0 || exec sleep 1000", **_indexed(3, successPolicy={"rules": [{"succeededIndexes": "0"}]})),
    _job("late", "exec sleep 1000", activeDeadlineSeconds=2),
    _job("forgotten", "true", ttlSecondsAfterFinished=1),
    _job("theirs", "true", managedBy="example.com/somebody"),
    _job("elastic", "exec sleep 1000", **_indexed(2)),
    _job("still", "exec sleep 1000", suspend=True, parallelism=2, completions=2),
]


def test_how_jobs_end_and_what_may_change_of_them(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "batch")
    cluster.kubectl("-n", "batch", "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": JOBS}))
    ends = {"per-index": ("Failed", "FailedIndexes"), "fail-index": ("Failed", "FailedIndexes"), "late": ("Failed", "DeadlineExceeded")}
    for name, (kind, reason) in {**ends, "enough": ("Complete", "SuccessPolicy")}.items():
        cluster.kubectl("-n", "batch", "wait", f"job/{name}", f"--for=condition={kind}", "--timeout=60s")
        last = _status(cluster, name)["conditions"][-1]
        assert (last["type"], last["reason"]) == (kind, reason)
    per_index, fail_index = _status(cluster, "per-index"), _status(cluster, "fail-index")
    assert (per_index["completedIndexes"], per_index["failedIndexes"]) == ("0-1", "2-3")
    assert (fail_index["completedIndexes"], fail_index["failedIndexes"], fail_index["failed"]) == ("0", "1-2", 2)
    assert _status(cluster, "enough")["completedIndexes"] == "0"
    cluster.kubectl("-n", "batch", "wait", "job/forgotten", "--for=delete", "--timeout=60s")
    assert _status(cluster, "theirs") == {}
    _grows_and_shrinks(cluster)
    _rests_and_goes_on(cluster)
    _made_by_hand(cluster)
    cluster.kubectl("delete", "namespace", "batch", "--timeout=60s")


def _status(cluster: Cluster, name: str) -> Any:
    return cluster.get("job", name, "-n", "batch")["status"]


def _patch(cluster: Cluster, name: str, *, status: int = 0, **spec: Any) -> str:
    words = ("patch", "job", name, "--type=merge", "-p", json.dumps({"spec": spec}))
    return str(cluster.kubectl("-n", "batch", *words, status=status).stderr)


def _indexes(cluster: Cluster) -> list[str]:
    pods = cluster.get("pods", "-n", "batch", "-l", "batch.kubernetes.io/job-name=elastic")["items"]
    return sorted(
        pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in pods if pod["status"].get("phase") == "Running"
    )


def _grows_and_shrinks(cluster: Cluster) -> None:
    _patch(cluster, "elastic", completions=4, parallelism=4)
    until(lambda: _indexes(cluster) == ["0", "1", "2", "3"], "a Pod for each index")
    assert "can only be modified in tandem with spec.parallelism" in _patch(cluster, "elastic", completions=5, status=1)
    _patch(cluster, "elastic", completions=1, parallelism=1)
    until(lambda: _indexes(cluster) == ["0"], "no Pod beyond the indexes")
    assert "failed" not in _status(cluster, "elastic")


def _rests_and_goes_on(cluster: Cluster) -> None:
    placed = {"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}
    _patch(cluster, "still", template=placed)
    _patch(cluster, "still", suspend=False)
    until(lambda: _status(cluster, "still").get("ready") == 2, "it runs")
    assert "spec.template: Invalid value" in _patch(cluster, "still", template={"spec": {"nodeSelector": {"a": "b"}}}, status=1)
    _patch(cluster, "still", suspend=True)
    until(lambda: "active" not in _status(cluster, "still"), "it rests")
    assert [(one["type"], one["status"]) for one in _status(cluster, "still")["conditions"]] == [("Suspended", "True")]
    _patch(cluster, "still", template=placed, parallelism=1)


def _made_by_hand(cluster: Cluster) -> None:
    words = ("create", "cronjob", "nightly", "--image=podwire.dev/machine", "--schedule=0 3 1 1 *", "--", "true")
    cluster.kubectl("-n", "batch", *words)
    cluster.kubectl("-n", "batch", "create", "job", "now", "--from=cronjob/nightly")
    cluster.kubectl("-n", "batch", "wait", "job/now", "--for=condition=Complete", "--timeout=60s")
    assert cluster.get("cronjob", "nightly", "-n", "batch")["status"].get("active") is None
