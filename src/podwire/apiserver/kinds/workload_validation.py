"""What makes a workload right: counts, selectors that match their templates, strategies, and what may not change.

Here: rules on the plain tree, all errors at once. Not here: the Pod template's own (``pod_validation.py``).

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/ and the API's own messages
"""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.apiserver.kind import Tree
from podwire.apiserver.kinds.pod_validation import template_errors
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, forbidden, invalid, required, unsupported
from podwire.apiserver.validation_values import amount_or_percent_errors, not_negative, one_of, selector_errors
from podwire.objects.meta import LabelSelector

_SPEC = Path("spec")


def validate_deployment(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of a Deployment."""
    spec = tree.get("spec", {})
    errors = _replicated(spec, "deployment")
    errors += _strategy(spec.get("strategy", {}), _SPEC / "strategy")
    errors += not_negative(spec.get("revisionHistoryLimit"), _SPEC / "revisionHistoryLimit")
    deadline = spec.get("progressDeadlineSeconds")
    errors += not_negative(deadline, _SPEC / "progressDeadlineSeconds")
    if deadline is not None and deadline <= spec.get("minReadySeconds", 0):
        errors.append(invalid(_SPEC / "progressDeadlineSeconds", deadline, "must be greater than minReadySeconds"))
    return errors + _fixed_selector(spec, old)


def validate_replica_set(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of a ReplicaSet."""
    spec = tree.get("spec", {})
    return _replicated(spec, "replicaset") + _fixed_selector(spec, old)


def validate_replication_controller(tree: Tree, _old: Tree | None) -> list[FieldError]:
    """Give every error of a ReplicationController, whose selector is a plain map and may change."""
    spec = tree.get("spec", {})
    labels = spec.get("selector")
    errors = [] if labels else [required(_SPEC / "selector")]
    selector = {"matchLabels": labels} if labels else None
    return errors + [error for error in _replicated({**spec, "selector": selector}, "replicationcontroller") if error not in errors]


def validate_stateful_set(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of a StatefulSet."""
    spec = tree.get("spec", {})
    errors = _replicated(_with_claims(spec), "statefulset")
    errors += one_of(spec.get("podManagementPolicy", ""), ("OrderedReady", "Parallel"), _SPEC / "podManagementPolicy")
    strategy = spec.get("updateStrategy", {})
    errors += one_of(strategy.get("type", ""), ("OnDelete", "RollingUpdate"), _SPEC / "updateStrategy" / "type")
    errors += not_negative(spec.get("revisionHistoryLimit"), _SPEC / "revisionHistoryLimit")
    if old is None:
        return errors
    free = (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
    fixed = [{key: value for key, value in one.get("spec", {}).items() if key not in free} for one in (tree, old)]
    if fixed[0] != fixed[1]:
        names = ", ".join(f"'{key}'" for key in free[:-1])
        text = f"updates to statefulset spec for fields other than {names} and 'minReadySeconds' are forbidden"
        errors.append(forbidden(_SPEC, text))
    return errors


def _with_claims(spec: Tree) -> Tree:
    """Give the spec with a volume for each claim template: what containers may mount, since each Pod has a claim of that name."""
    template = spec.get("template", {})
    pod = template.get("spec", {})
    volumes = pod.get("volumes", [])
    have = {volume.get("name") for volume in volumes}
    claims = [claim.get("metadata", {}).get("name") for claim in spec.get("volumeClaimTemplates", ())]
    volumes = [*volumes, *({"name": claim, "emptyDir": {}} for claim in claims if claim not in have)]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}} if claims else spec


def validate_daemon_set(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of a DaemonSet."""
    spec = tree.get("spec", {})
    errors = _replicated(spec, "daemonset")
    strategy, path = spec.get("updateStrategy", {}), _SPEC / "updateStrategy"
    errors += one_of(strategy.get("type", ""), ("OnDelete", "RollingUpdate"), path / "type")
    if rolling := strategy.get("rollingUpdate"):
        gone, extra = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
        errors += amount_or_percent_errors(gone, path / "rollingUpdate" / "maxUnavailable", at_most_all=True)
        errors += amount_or_percent_errors(extra, path / "rollingUpdate" / "maxSurge", at_most_all=True)
        if _is_zero(gone) == _is_zero(extra):
            text = "cannot be 0 when maxSurge is 0" if _is_zero(gone) else "may not be set when maxUnavailable is non-zero"
            errors.append(
                invalid(
                    path / "rollingUpdate" / ("maxUnavailable" if _is_zero(gone) else "maxSurge"), gone if _is_zero(gone) else extra, text
                )
            )
    return errors + _fixed_selector(spec, old)


def _replicated(spec: Tree, kind: str) -> list[FieldError]:
    errors = not_negative(spec.get("replicas"), _SPEC / "replicas")
    errors += not_negative(spec.get("minReadySeconds"), _SPEC / "minReadySeconds")
    template = spec.get("template", {})
    errors += selector_and_labels(spec.get("selector"), template, kind, _SPEC)
    errors += template_errors(template, _SPEC / "template")
    pod, path = template.get("spec", {}), _SPEC / "template" / "spec"
    if pod.get("restartPolicy", "Always") != "Always":
        errors.append(unsupported(path / "restartPolicy", pod["restartPolicy"], ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        errors.append(forbidden(path / "activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported"))
    return errors


def selector_and_labels(selector: Tree | None, template: Tree, kind: str, path: Path) -> list[FieldError]:
    """Check that a workload's selector is one, selects something, and selects the Pods of its own template."""
    if selector is None:
        return [required(path / "selector")]
    errors = selector_errors(selector, path / "selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        errors.append(invalid(path / "selector", selector, f"empty selector is invalid for {kind}"))
    labels = template.get("metadata", {}).get("labels", {})
    if not errors and not matches(selector, labels):
        errors.append(invalid(path / "template" / "metadata" / "labels", labels, "`selector` does not match template `labels`"))
    return errors


def matches(selector: Tree, labels: dict[str, str]) -> bool:
    """Say whether a label selector, as a tree, matches."""
    return msgspec.convert(selector, LabelSelector).matches(labels)


def _fixed_selector(spec: Tree, old: Tree | None) -> list[FieldError]:
    if old is None or spec.get("selector") == old.get("spec", {}).get("selector"):
        return []
    return [invalid(_SPEC / "selector", spec.get("selector"), IMMUTABLE)]


def _is_zero(value: Any) -> bool:
    return value in (0, "0%")


def _strategy(strategy: Tree, path: Path) -> list[FieldError]:
    rolling = strategy.get("rollingUpdate")
    match strategy.get("type"):
        case "Recreate":
            text = "may not be specified when strategy `type` is 'Recreate'"
            return [] if rolling is None else [forbidden(path / "rollingUpdate", text)]
        case "RollingUpdate":
            if rolling is None:
                return [required(path / "rollingUpdate", "this should be defaulted and never be nil")]
            gone, extra = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
            where = path / "rollingUpdate"
            errors = amount_or_percent_errors(gone, where / "maxUnavailable", at_most_all=True)
            errors += amount_or_percent_errors(extra, where / "maxSurge")
            if _is_zero(gone) and _is_zero(extra):
                errors.append(invalid(where / "maxUnavailable", gone, "may not be 0 when `maxSurge` is 0"))
            return errors
    return [unsupported(path / "type", strategy.get("type", ""), ("Recreate", "RollingUpdate"))]
