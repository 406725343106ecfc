"""PodSecurity: the standards against what upstream says of the same Pods, and namespaces that are held to them over HTTPS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from podwire.apiserver.admission import pod_security, pod_standards
from podwire.apiserver.admission.pod_security import Policy, Standard
from podwire.apiserver.validation import summary
from podwire.apiserver.version import KUBERNETES_VERSION

Tree = dict[str, Any]
CASES = Path(__file__).parents[2] / "cases" / "pod_security.jsonl"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
BARE = (
    'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
    'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
    'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
    'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
)
MEEK: Tree = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def labels(**modes: str) -> dict[str, str]:
    """``enforce_version`` is the label ``…/enforce-version``."""
    return {pod_security.PREFIX + mode.replace("_", "-"): value for mode, value in modes.items()}


# The standards -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [json.loads(line) for line in CASES.read_text().splitlines()], ids=lambda case: case["enforce"])
def test_what_upstream_says_of_the_same_pod(case: Tree) -> None:
    """Each case is a Pod that upstream's own evaluator was given, and what it said."""
    held = pod_security.policy(case["labels"])
    found = held.enforce.faults(case["metadata"], case["spec"])
    assert (str(held.enforce), str(held.audit), str(held.warn)) == (case["enforce"], case["audit"], case["warn"])
    assert (summary(held.errors) if held.errors else "") == case["errors"]
    assert ", ".join(wrong.reason for wrong in found) == case["short"]
    assert ", ".join(map(str, found)) == case["told"]


def test_the_cases_reach_every_check_of_every_level() -> None:
    told = {reason for line in CASES.read_text().splitlines() for reason in json.loads(line)["short"].split(", ")}
    assert told - {""} == {
        "allowPrivilegeEscalation != false",
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        "forbidden sysctls",
        "host namespaces",
        "hostPath volumes",
        "hostPort",
        "hostProcess",
        "non-default capabilities",
        "privileged",
        "probe or lifecycle host",
        "procMount",
        "restricted volume types",
        "runAsNonRoot != true",
        "runAsUser=0",
        "seLinuxOptions",
        "seccompProfile",
        "unrestricted capabilities",
    }


def test_the_newest_checks_are_those_of_the_version_that_is_served() -> None:
    assert KUBERNETES_VERSION.startswith(f"v1.{pod_standards.NEWEST}.")


def test_a_namespace_that_says_nothing_is_open() -> None:
    assert pod_security.policy({}).is_open
    assert pod_security.policy({"app": "web"}) == Policy()
    assert pod_security.policy(labels(enforce="privileged")).is_open
    assert not pod_security.policy(labels(enforce="loose")).is_open
    assert not pod_security.policy(labels(warn="baseline")).is_open


def test_pods_are_looked_at_when_more_is_enforced() -> None:
    def rises(old: tuple[str, str], new: tuple[str, str]) -> bool:
        return pod_security.is_rising(Policy(enforce=Standard(*new)), Policy(enforce=Standard(*old)))

    assert rises(("privileged", "latest"), ("baseline", "latest"))
    assert rises(("baseline", "v1.20"), ("baseline", "latest"))
    assert rises(("restricted", "v1.20"), ("baseline", "latest"))  # another version may ask for more
    assert not rises(("restricted", "latest"), ("baseline", "latest"))
    assert not rises(("restricted", "latest"), ("privileged", "v1.20"))
    assert not rises(("baseline", "latest"), ("baseline", "latest"))


def test_the_first_pod_of_each_controller_is_looked_at_before_the_others() -> None:
    assert pod_security.in_turn(["a", "a", "", "b", "a", "", "b"]) == [0, 2, 3, 5, 1, 4, 6]
    many = [(f"p{number}", "privileged") for number in (2, 1, 3)]
    assert pod_security.of_existing("n", Standard("baseline"), [*many, ("x", "hostPort"), ("y", "hostPort"), ("z", "")], 6, 7) == [
        "new PodSecurity enforce level only checked against the first 6 of 7 existing pods",
        'existing pods in namespace "n" violate the new PodSecurity enforce level "baseline:latest"',
        "p1 (and 2 other pods): privileged",
        "x (and 1 other pod): hostPort",
    ]


# Over HTTPS ------------------------------------------------------------------------------------------------------------------------


def path(namespace: str, plural: str = "pods", name: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}{'/' + name if name else ''}"


def apps(namespace: str, plural: str, name: str = "") -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/{plural}{'/' + name if name else ''}"


def pod(name: str, context: Tree | None = None, **spec: Any) -> Tree:
    container = {"name": "c", "image": "nginx", **({"securityContext": context} if context is not None else {})}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def deployment(name: str, context: Tree | None = None, **spec: Any) -> Tree:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod("", context, **spec)["spec"]}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}}, "template": template}}


def warnings(got: Any) -> list[str]:
    """Read the warnings of an answer."""
    texts = got.headers.get_all("warning") or []
    return [text.removeprefix('299 - "').removesuffix('"').replace('\\"', '"') for text in texts]


@pytest.fixture
def hold(call: Any, namespace: str) -> Any:
    """Give the test's own namespace labels; gives the answer."""

    def change(query: str = "", **modes: str) -> Any:
        return call("PATCH", f"/api/v1/namespaces/{namespace}{query}", {"metadata": {"labels": labels(**modes)}}, content_type=MERGE)

    return change


def test_a_pod_that_violates_what_is_enforced_is_refused(call: Any, namespace: str, hold: Any) -> None:
    assert call("POST", path(namespace), pod("before")).status == 201
    assert hold(enforce="restricted").status == 200
    refused = call("POST", path(namespace), pod("x"))
    assert (refused.status, refused.tree["reason"], refused.tree["details"]) == (403, "Forbidden", {"name": "x", "kind": "pods"})
    assert refused.tree["message"] == f'pods "x" is forbidden: violates PodSecurity "restricted:latest": {BARE}'
    assert warnings(refused) == []
    for name in ("y", "z"):  # the second is made as the first was
        assert call("POST", path(namespace), pod(name, MEEK)).status == 201
    assert call("POST", path(namespace), pod("x")).status == 403
    assert call("POST", path("default"), pod(namespace)).status == 201


def test_a_pod_that_was_there_stays_and_may_be_changed(call: Any, namespace: str, hold: Any) -> None:
    assert call("POST", path(namespace), pod("old")).status == 201
    assert hold(enforce="baseline", enforce_version="v1.30").status == 200
    assert call("PATCH", path(namespace, name="old"), {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE).status == 200
    assert hold(enforce="restricted").status == 200
    assert call("PATCH", path(namespace, name="old"), {"metadata": {"labels": {"a": "c"}}}, content_type=MERGE).status == 200
    image = {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}
    refused = call("PATCH", path(namespace, name="old"), image, content_type=STRATEGIC)
    assert refused.tree["message"] == f'pods "old" is forbidden: violates PodSecurity "restricted:v1.30": {BARE}'


def test_a_container_that_is_added_to_a_running_pod_is_held_to_it_too(call: Any, namespace: str, hold: Any) -> None:
    assert call("POST", path(namespace), pod("old")).status == 201
    assert hold(enforce="baseline").status == 200
    debug = {"name": "debug", "image": "busybox", "securityContext": {"privileged": True}}
    where = path(namespace, name="old/ephemeralcontainers")
    refused = call("PATCH", where, {"spec": {"ephemeralContainers": [debug]}}, content_type=STRATEGIC)
    assert refused.tree["message"] == (
        'pods "old" is forbidden: violates PodSecurity "baseline:latest": '
        'privileged (container "debug" must not set securityContext.privileged=true)'
    )
    del debug["securityContext"]
    assert call("PATCH", where, {"spec": {"ephemeralContainers": [debug]}}, content_type=STRATEGIC).status == 200


def test_a_subresource_that_writes_no_container_is_not_asked_about(call: Any, namespace: str, hold: Any) -> None:
    made = call("POST", path(namespace), pod("old")).tree
    assert hold(enforce="restricted").status == 200
    state = {**made, "status": {**made["status"], "message": "seen"}}
    assert call("PUT", path(namespace, name="old/status"), state).status == 200
    assert call("POST", path(namespace, name="old/binding"), {"metadata": {"name": "old"}, "target": {"name": "n"}}).status == 201
    assert call("DELETE", path(namespace, name="old")).status == 200


def test_who_writes_a_template_is_warned(call: Any, namespace: str, hold: Any) -> None:
    assert hold(enforce="restricted", warn_version="v1.20").status == 200
    told = 'would violate PodSecurity "restricted:v1.20": '
    for plural in ("deployments", "replicasets", "statefulsets", "daemonsets"):
        made = call("POST", apps(namespace, plural), deployment("web"))
        assert made.status == 201, made.tree
        assert [text.split(": ")[0] for text in warnings(made)] == [told.split(": ")[0]]
    assert warnings(call("POST", apps(namespace, "deployments"), deployment("meek", MEEK))) == []
    scaled = call("PATCH", apps(namespace, "deployments", "web/scale"), {"spec": {"replicas": 0}}, content_type=MERGE)
    assert (scaled.status, warnings(scaled)) == (200, [])
    changed = call("PATCH", apps(namespace, "deployments", "web"), {"spec": {"paused": True}}, content_type=MERGE)
    assert len(warnings(changed)) == 1
    never = {"template": {"spec": {**pod("")["spec"], "restartPolicy": "Never"}}}
    job = call("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", {"metadata": {"name": "j"}, "spec": never})
    cron = {"metadata": {"name": "j"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": never}}}
    cron_job = call("POST", f"/apis/batch/v1/namespaces/{namespace}/cronjobs", cron)
    controller = {"metadata": {"name": "r"}, "spec": {"selector": {"app": "r"}, "template": deployment("r")["spec"]["template"]}}
    for made in (job, cron_job, call("POST", path(namespace, "replicationcontrollers"), controller)):
        assert made.status == 201, made.tree
        assert warnings(made)[-1].startswith(told)


def test_a_level_that_is_only_warned_of_refuses_nothing(call: Any, namespace: str, hold: Any) -> None:
    assert hold(enforce="baseline", warn="restricted").status == 200
    made = call("POST", path(namespace), pod("x"))
    assert (made.status, warnings(made)) == (201, [f'would violate PodSecurity "restricted:latest": {BARE}'])
    refused = call("POST", path(namespace), pod("y", hostPID=True))
    assert refused.tree["message"] == 'pods "y" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)'
    assert warnings(refused) == []


def test_who_raises_a_level_hears_of_pods_that_are_there(call: Any, namespace: str, hold: Any) -> None:
    for name, context in (("b", None), ("a", None), ("meek", MEEK), ("bold", {"privileged": True})):
        assert call("POST", path(namespace), pod(name, context)).status == 201
    dry = hold("?dryRun=All", enforce="baseline")
    assert warnings(dry) == [
        f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "baseline:latest"',
        "bold: privileged",
    ]
    assert call("POST", path(namespace), pod("other", {"privileged": True})).status == 201  # nothing was stored
    rest = "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    assert warnings(hold(enforce="restricted")) == [
        f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "restricted:latest"',
        f"a (and 1 other pod): {rest}",
        f"bold (and 1 other pod): privileged, {rest}",
    ]
    assert warnings(hold(enforce="baseline")) == []
    assert warnings(hold(warn="restricted")) == []


def test_many_pods_are_looked_at(call: Any, namespace: str, hold: Any) -> None:
    """More than one slice of them: others are served in between, and the namespace is looked at again."""
    for number in range(205):
        assert call("POST", path(namespace), pod(f"p{number:03}", hostPID=True)).status == 201
    assert warnings(hold(enforce="baseline"))[1:] == ["p000 (and 204 other pods): host namespaces"]


def test_labels_that_mean_nothing_are_refused(call: Any, namespace: str, hold: Any) -> None:
    key = f"metadata.labels[{pod_security.PREFIX}enforce]"
    refused = hold(enforce="loose")
    assert (refused.status, refused.tree["reason"]) == (422, "Invalid")
    assert refused.tree["message"] == (
        f'Namespace "{namespace}" is invalid: {key}: Invalid value: "loose": must be one of privileged, baseline, restricted'
    )
    refused = hold(enforce="restricted", warn_version="1.30", audit="all")
    assert [cause["field"] for cause in refused.tree["details"]["causes"]] == [
        f"metadata.labels[{pod_security.PREFIX}audit]",
        f"metadata.labels[{pod_security.PREFIX}warn-version]",
    ]
    assert refused.tree["details"]["causes"][1]["message"] == 'Invalid value: "1.30": must be "latest" or "v1.x"'
    made = call("POST", "/api/v1/namespaces", {"metadata": {"name": f"{namespace}-2", "labels": labels(enforce="v1")}})
    assert made.status == 422
    assert call("POST", path(namespace), pod("x")).status == 201


def test_a_label_that_is_taken_away_holds_nobody(call: Any, namespace: str, hold: Any) -> None:
    assert hold(enforce="restricted").status == 200
    assert call("POST", path(namespace), pod("x")).status == 403
    gone = {"metadata": {"labels": {f"{pod_security.PREFIX}enforce": None}}}
    assert call("PATCH", f"/api/v1/namespaces/{namespace}", gone, content_type=MERGE).status == 200
    assert call("POST", path(namespace), pod("x")).status == 201
