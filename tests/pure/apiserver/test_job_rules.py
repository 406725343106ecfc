# ruff: noqa: E501  (messages are written whole, so that they can be searched for)
"""What is refused of Jobs, and what of one may change."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from podwire.apiserver import schema
from podwire.apiserver.kinds.batch import CRON_JOB, JOB
from podwire.apiserver.kinds.job_validation import BadIndexes, count_indexes

Tree = dict[str, Any]
TEMPLATE: Tree = {"spec": {"containers": [{"name": "a", "image": "nginx"}], "restartPolicy": "Never"}}
INDEXED: Tree = {"completionMode": "Indexed", "completions": 5, "parallelism": 5}


def job(name: str = "x", **spec: Any) -> Tree:
    tree: Tree = {"metadata": {"name": name, "namespace": "default", "uid": "u"}, "spec": {"template": TEMPLATE, **spec}}
    tree = copy.deepcopy(tree)
    assert schema.prune_and_check(JOB, tree) == []
    JOB.for_create(tree)
    return tree


def errors(name: str = "x", **spec: Any) -> list[str]:
    return [str(error) for error in JOB.check(job(name, **spec), None)]


def failing(**rule: Any) -> Tree:
    return {"podFailurePolicy": {"rules": [rule]}}


CODES: Tree = {"operator": "In", "values": [1]}
RULE = "spec.podFailurePolicy.rules[0]"
SUCCESS = "spec.successPolicy.rules[0]"


def succeeding(**rule: Any) -> Tree:
    return {**INDEXED, "successPolicy": {"rules": [rule]}}


@pytest.mark.parametrize(
    "spec",
    [
        {},
        INDEXED,
        {**INDEXED, "backoffLimitPerIndex": 1, "maxFailedIndexes": 5},
        failing(action="FailJob", onExitCodes={"operator": "NotIn", "values": [0, 1], "containerName": "a"}),
        failing(action="Ignore", onPodConditions=[{"type": "DisruptionTarget"}]),
        {**INDEXED, "backoffLimitPerIndex": 0, **failing(action="FailIndex", onExitCodes=CODES)},
        succeeding(succeededIndexes="0,2-3", succeededCount=2),
        succeeding(succeededCount=1),
        {"managedBy": "acme.io/foo"},
        {"managedBy": "kubernetes.io/job-controller"},
        {"podReplacementPolicy": "Failed"},
    ],
)  # fmt: skip
def test_what_is_right(spec: Tree) -> None:
    assert errors(**spec) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"backoffLimitPerIndex": 1}, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
        ({**INDEXED, "maxFailedIndexes": 2}, "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"),
        ({**INDEXED, "maxFailedIndexes": 6, "backoffLimitPerIndex": 1}, "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions"),
        ({"completionMode": "Indexed", "parallelism": 1}, "spec.completions: Required value: when completion mode is Indexed"),
        ({**INDEXED, "parallelism": 100_001}, "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"),
        ({**INDEXED, "completions": 100_001, "backoffLimitPerIndex": 1}, "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"),
        ({"completionMode": "Both"}, 'spec.completionMode: Unsupported value: "Both": supported values: "Indexed", "NonIndexed"'),
        ({"managedBy": "me"}, 'spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")'),
        ({"podReplacementPolicy": "Now"}, 'spec.podReplacementPolicy: Unsupported value: "Now": supported values: "Failed", "TerminatingOrFailed"'),
        ({**failing(action="Count", onExitCodes=CODES), "podReplacementPolicy": "TerminatingOrFailed"}, 'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"'),
        (failing(onExitCodes=CODES), f'{RULE}.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'),
        (failing(action="FailIndex", onExitCodes=CODES), f'{RULE}.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set'),
        (failing(action="Stop", onExitCodes=CODES), f'{RULE}.action: Unsupported value: "Stop": supported values: "Count", "FailIndex", "FailJob", "Ignore"'),
        (failing(action="Count"), f"{RULE}: Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
        (failing(action="Count", onExitCodes=CODES, onPodConditions=[{"type": "A"}]), f"{RULE}: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"),
        (failing(action="Count", onExitCodes={"operator": "In", "values": [0]}), f"{RULE}.onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"),
        (failing(action="Count", onExitCodes={"operator": "In", "values": [2, 1]}), f"{RULE}.onExitCodes.values: Invalid value: [2,1]: must be ordered"),
        (failing(action="Count", onExitCodes={"operator": "In", "values": [1, 1]}), f"{RULE}.onExitCodes.values[1]: Duplicate value: 1"),
        (failing(action="Count", onExitCodes={"operator": "In"}), f"{RULE}.onExitCodes.values: Invalid value: []: at least one value is required"),
        (failing(action="Count", onExitCodes={"values": [1]}), f'{RULE}.onExitCodes.operator: Required value: valid values: ["In" "NotIn"]'),
        (failing(action="Count", onExitCodes={**CODES, "containerName": "b"}), f'{RULE}.onExitCodes.containerName: Invalid value: "b": must be one of the container or initContainer names in the pod template'),
        (failing(action="Count", onPodConditions=[{"type": "A", "status": "Maybe"}]), f'{RULE}.onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"'),
        ({"podFailurePolicy": {"rules": 21 * [{"action": "Count", "onExitCodes": CODES}]}}, "spec.podFailurePolicy.rules: Too many: must have at most 20 items"),
        ({"successPolicy": {"rules": [{"succeededCount": 1}]}}, 'spec.successPolicy: Invalid value: {"rules":[{"succeededCount":1}]}: requires indexed completion mode'),
        (succeeding(succeededIndexes="3-1"), f'{SUCCESS}.succeededIndexes: Invalid value: "3-1": error parsing succeededIndexes: non-increasing order, previous: 3, current: 1'),
        (succeeding(succeededCount=6), f"{SUCCESS}.succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)"),
        (succeeding(succeededCount=3, succeededIndexes="0-1"), f"{SUCCESS}.succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"),
    ],
)  # fmt: skip
def test_what_is_refused(spec: Tree, expected: str) -> None:
    assert errors(**spec) == [expected]


def test_restarts_go_with_no_failure_policy() -> None:
    template = {"spec": {**TEMPLATE["spec"], "restartPolicy": "OnFailure"}}
    words = 'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified'
    assert errors(template=template, **failing(action="Count", onExitCodes=CODES)) == [words]


def test_names_of_indexed_jobs_leave_room_for_the_index() -> None:
    assert errors("x" * 61, **INDEXED) == []
    assert errors("x" * 62, **INDEXED) == [
        f'metadata.name: Invalid value: "{"x" * 62}": will not able to create pod with invalid DNS label: {"x" * 62}-4'
    ]
    assert errors("x" * 63) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1-2-3", "the fragment \"1-2-3\" violates the requirement that an index interval can have at most two parts separated by '-'"),
        ("a", 'cannot convert string to integer for index: "a"'),
        ("1,", 'cannot convert string to integer for index: ""'),
        ("5", 'too large index: "5"'),
        ("1-5", 'too large index: "5"'),
        ("1,1", "non-increasing order, previous: 1, current: 1"),
        ("2-3,1", "non-increasing order, previous: 3, current: 1"),
        ("٣", 'cannot convert string to integer for index: "٣"'),
    ],
)  # fmt: skip
def test_indexes(text: str, words: str) -> None:
    with pytest.raises(BadIndexes) as refused:
        count_indexes(text, 5)
    assert str(refused.value) == words
    assert count_indexes("0,2-4", 5) == 4
    assert count_indexes("", 5) == 0


# Selectors that a Job makes itself -----------------------------------------------------------------------------------------


def test_what_was_another_jobs_is_refused() -> None:
    """As after `kubectl get job x -o yaml`, edited and created anew."""
    other = job("other")
    other["metadata"]["uid"] = "v"
    [owner, legacy, selector] = [str(error) for error in JOB.check(other, None) if "uid" in str(error) or "selector" in str(error)]
    assert owner.startswith("spec.template.metadata.labels[batch.kubernetes.io/controller-uid]: Invalid value: ")
    assert owner.endswith(": must be 'v'")
    assert legacy.startswith("spec.template.metadata.labels[controller-uid]: Invalid value: ")
    assert selector.endswith(": `selector` not auto-generated")
    own = {"app": "mine"}
    manual = job(manualSelector=True, selector={"matchLabels": own}, template={**TEMPLATE, "metadata": {"labels": own}})
    assert JOB.check(manual, None) == []
    assert manual["spec"]["template"]["metadata"]["labels"] == own


def test_a_template_of_jobs() -> None:
    template = {"spec": {"template": TEMPLATE, "selector": {"matchLabels": {"a": "b"}}, "manualSelector": True, "backoffLimitPerIndex": 1}}
    tree: Tree = {"metadata": {"name": "x", "namespace": "default"}, "spec": {"schedule": "* * * * *", "jobTemplate": template}}
    CRON_JOB.for_create(tree)
    where = "spec.jobTemplate.spec"
    assert [str(error) for error in CRON_JOB.check(tree, None)] == [
        f"{where}.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
        f'{where}.selector: Invalid value: {{"matchLabels":{{"a":"b"}}}}: `selector` will be auto-generated',
        f'{where}.manualSelector: Unsupported value: true: supported values: "false", "nil"',
    ]


# Changes -------------------------------------------------------------------------------------------------------------------


def changed(old: Tree, **spec: Any) -> list[str]:
    tree = copy.deepcopy(old)
    tree["spec"] |= spec
    JOB.for_update(tree, old)
    return [str(error) for error in JOB.check(tree, old)]


def test_what_may_change() -> None:
    old = job(**INDEXED)
    assert changed(old, parallelism=2, suspend=True, backoffLimit=1, activeDeadlineSeconds=5, ttlSecondsAfterFinished=1) == []
    assert changed(old, completions=7, parallelism=7) == []
    assert changed(old, completions=7) == ["spec.completions: Invalid value: 7: can only be modified in tandem with spec.parallelism"]
    assert changed(old, completionMode="NonIndexed")[0] == 'spec.completionMode: Invalid value: "NonIndexed": field is immutable'
    assert changed(old, managedBy="acme.io/foo") == ['spec.managedBy: Invalid value: "acme.io/foo": field is immutable']
    assert changed(job(completions=2), completions=3) == ["spec.completions: Invalid value: 3: field is immutable"]


def test_a_suspended_job_lets_its_pods_be_placed_elsewhere() -> None:
    def template(tree: Tree, **spec: Any) -> Tree:
        found: Tree = copy.deepcopy(tree["spec"]["template"])
        found["spec"] |= spec
        return found

    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]
            }
        }
    }
    placed = {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "a", "operator": "Exists"}], "affinity": affinity}
    suspended = job(suspend=True)
    assert changed(suspended, template=template(suspended, **placed)) == []
    asks = [{**suspended["spec"]["template"]["spec"]["containers"][0], "resources": {"requests": {"cpu": "1"}}}]
    assert changed(suspended, template=template(suspended, containers=asks)) == []
    other = [{**suspended["spec"]["template"]["spec"]["containers"][0], "image": "other"}]
    assert len(changed(suspended, template=template(suspended, containers=other))) == 1
    assert len(changed(suspended, template=template(suspended, affinity={"podAffinity": {}, **affinity}, serviceAccountName="x"))) == 1
    running = job()
    assert len(changed(running, template=template(running, **placed))) == 1
    ran = copy.deepcopy(suspended)
    ran["status"] = {"startTime": "2026-01-01T00:00:00Z", "active": 1}
    assert len(changed(ran, template=template(ran, **placed))) == 1
    ran["status"] = {"conditions": [{"type": "Suspended", "status": "True"}], "startTime": "2026-01-01T00:00:00Z"}
    assert changed(ran, template=template(ran, **placed)) == []
