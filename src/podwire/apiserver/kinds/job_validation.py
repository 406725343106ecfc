"""What is refused of Jobs, and of the templates of Jobs that CronJobs have.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/, https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

import copy
from typing import Any, Final

from podwire.apiserver.kind import Tree
from podwire.apiserver.kinds.pod_validation import template_errors
from podwire.apiserver.kinds.workload_validation import matches, selector_and_labels
from podwire.apiserver.validation import (
    IMMUTABLE,
    OMITTED,
    TOO_LONG,
    FieldError,
    Path,
    dns_label,
    dns_subdomain,
    duplicate,
    invalid,
    required,
    too_many,
    unsupported,
)
from podwire.apiserver.validation_values import not_negative, one_of, qualified_errors

_SPEC: Final = Path("spec")
_INDEXED: Final = "Indexed"
_NUMBERS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished", "backoffLimitPerIndex")
_MOST_INDEXED, _MOST_WITH_LIMIT = 100_000, 10_000
_MOST_RULES, _MOST_CODES, _MOST_INDEX_TEXT, _LONGEST_KEEPER = 20, 255, 64 * 1024, 63
_ACTIONS, _OPERATORS, _STATUSES = ("Count", "FailIndex", "FailJob", "Ignore"), ("In", "NotIn"), ("False", "True", "Unknown")
_MOVABLE = ("nodeSelector", "tolerations", "schedulingGates")
_NEEDS_INDEXES = "requires indexed completion mode"


class BadIndexes(ValueError):
    """What is wrong with a set of indexes."""


def job_errors(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give the errors of a Job."""
    spec, metadata = tree.get("spec", {}), tree["metadata"]
    errors = [] if spec.get("manualSelector") else _generated(spec, metadata)
    errors += spec_errors(spec, _SPEC) + selector_and_labels(spec.get("selector"), spec.get("template", {}), "job", _SPEC)
    if spec.get("completionMode") == _INDEXED and spec.get("completions", 0) > 0:
        last = f"{metadata['name']}-{spec['completions'] - 1}"
        if dns_label(last):
            where, words = Path("metadata") / "name", f"will not able to create pod with invalid DNS label: {last}"
            errors.append(invalid(where, metadata["name"], words))
    return errors if old is None else errors + _changes(tree, old)


def _generated(spec: Tree, metadata: Tree) -> list[FieldError]:
    """A Job that makes its selector itself has the labels that it goes by."""
    expected: dict[str, str] = {}
    for prefix in ("batch.kubernetes.io/", ""):
        expected |= {f"{prefix}controller-uid": metadata.get("uid", ""), f"{prefix}job-name": metadata.get("name", "")}
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    where, errors = _SPEC / "template" / "metadata" / "labels", []
    for key, value in expected.items():
        if key not in labels:
            errors.append(required(where % key, f"must be '{value}'"))
        elif labels[key] != value:
            errors.append(invalid(where % key, labels, f"must be '{value}'"))
    if spec.get("selector") and not matches(spec["selector"], expected):
        errors.append(invalid(_SPEC / "selector", spec["selector"], "`selector` not auto-generated"))
    return errors


def template_of_job_errors(template: Tree, path: Path) -> list[FieldError]:
    """Give the errors of what a CronJob makes its Jobs from."""
    spec = template.get("spec", {})
    errors = spec_errors(spec, path / "spec")
    if spec.get("selector"):
        errors.append(invalid(path / "spec" / "selector", spec["selector"], "`selector` will be auto-generated"))
    if spec.get("manualSelector"):
        errors.append(unsupported(path / "spec" / "manualSelector", True, ("nil", "false")))
    return errors


def spec_errors(spec: Tree, path: Path) -> list[FieldError]:
    """Give the errors of a Job's spec, but for its selector."""
    errors = [error for key in _NUMBERS for error in not_negative(spec.get(key), path / key)]
    errors += _indexed(spec, path)
    if keeper := spec.get("managedBy"):
        if len(keeper) > _LONGEST_KEEPER:
            errors.append(FieldError(TOO_LONG, (path / "managedBy").text, None, f"may not be more than {_LONGEST_KEEPER} bytes"))
        if not _is_prefixed_path(keeper):
            errors.append(invalid(path / "managedBy", keeper, 'must be a domain-prefixed path (such as "acme.io/foo")'))
    if policy := spec.get("podFailurePolicy"):
        errors += _failure_policy(policy, spec, path / "podFailurePolicy" / "rules")
    if policy := spec.get("successPolicy"):
        errors += _success_policy(policy, spec, path / "successPolicy")
    if replaced := spec.get("podReplacementPolicy"):
        allowed = ("Failed",) if "podFailurePolicy" in spec else ("Failed", "TerminatingOrFailed")
        errors += one_of(replaced, allowed, path / "podReplacementPolicy")
    return errors + template_errors(spec.get("template", {}), path / "template") + _restarts(spec, path)


def _restarts(spec: Tree, path: Path) -> list[FieldError]:
    where, policy = path / "template" / "spec" / "restartPolicy", spec.get("template", {}).get("spec", {}).get("restartPolicy", "")
    if policy in ("", "Always"):
        return [required(where, 'valid values: "OnFailure", "Never"')]
    if policy == "OnFailure" and "podFailurePolicy" in spec:
        return [invalid(where, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def _is_prefixed_path(text: str) -> bool:
    domain, slash, rest = text.partition("/")
    return bool(slash and rest) and not dns_subdomain(domain) and all(one.isascii() and (one.isalnum() or one in "-._~/") for one in rest)


# Indexes -------------------------------------------------------------------------------------------------------------------


def _indexed(spec: Tree, path: Path) -> list[FieldError]:
    mode, lost = spec.get("completionMode"), spec.get("maxFailedIndexes")
    errors = not_negative(lost, path / "maxFailedIndexes")
    if lost is not None and "backoffLimitPerIndex" not in spec:
        errors.append(required(path / "backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if mode is not None:
        errors += one_of(mode, ("Indexed", "NonIndexed"), path / "completionMode")
    if mode == _INDEXED:
        return errors + _indexed_limits(spec, path)
    if mode in (None, "NonIndexed"):
        keys = ("backoffLimitPerIndex", "maxFailedIndexes")
        errors += [invalid(path / key, spec[key], _NEEDS_INDEXES) for key in keys if key in spec]
    return errors


def _indexed_limits(spec: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    completions, parallelism, lost = (spec.get(key) for key in ("completions", "parallelism", "maxFailedIndexes"))
    if completions is None:
        errors.append(required(path / "completions", "when completion mode is Indexed"))
    if parallelism is not None and parallelism > _MOST_INDEXED:
        words = f"must be less than or equal to {_MOST_INDEXED} when completion mode is Indexed"
        errors.append(invalid(path / "parallelism", parallelism, words))
    if lost is not None and completions is not None and lost > completions:
        errors.append(invalid(path / "maxFailedIndexes", lost, "must be less than or equal to completions"))
    if lost is not None and lost > _MOST_INDEXED:
        errors.append(invalid(path / "maxFailedIndexes", lost, f"must be less than or equal to {_MOST_INDEXED}"))
    if completions is not None and completions > _MOST_INDEXED and "backoffLimitPerIndex" in spec:
        if lost is None:
            errors.append(required(path / "maxFailedIndexes", f"must be specified when completions is above {_MOST_INDEXED}"))
        words = f"must be less than or equal to {_MOST_WITH_LIMIT} when completions are above {_MOST_INDEXED} "
        words += "and used with backoff limit per index"
        for key, value in (("parallelism", parallelism), ("maxFailedIndexes", lost)):
            if value is not None and value > _MOST_WITH_LIMIT:
                errors.append(invalid(path / key, value, words))
    return errors


def count_indexes(text: str, completions: int) -> int:
    """Give how many indexes a text names. Raises BadIndexes."""
    total, last = 0, -1
    for part in text.split(",") if text else ():
        first, *others = part.split("-")
        if len(others) > 1:
            words = f"the fragment \"{part}\" violates the requirement that an index interval can have at most two parts separated by '-'"
            raise BadIndexes(words)
        ends = [_index(one, completions) for one in (first, *others)]
        if len(ends) == 2 and ends[0] >= ends[1]:
            raise BadIndexes(f"non-increasing order, previous: {ends[0]}, current: {ends[1]}")
        if last >= ends[0]:
            raise BadIndexes(f"non-increasing order, previous: {last}, current: {ends[0]}")
        total, last = total + ends[-1] - ends[0] + 1, ends[-1]
    return total


def _index(text: str, completions: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise BadIndexes(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise BadIndexes(f'too large index: "{text}"')
    return int(text)


# Policies ------------------------------------------------------------------------------------------------------------------


def _success_policy(policy: Tree, spec: Tree, path: Path) -> list[FieldError]:
    if spec.get("completionMode") != _INDEXED:
        return [invalid(path, policy, _NEEDS_INDEXES)]
    rules = policy.get("rules", ())
    errors = [] if rules else [required(path / "rules", "at least one rules must be specified when the successPolicy is specified")]
    errors += _at_most(_MOST_RULES, rules, path / "rules")
    for at, rule in enumerate(rules):
        errors += _success_rule(rule, spec.get("completions", 0), path / "rules" @ at)
    return errors


def _success_rule(rule: Tree, completions: int, path: Path) -> list[FieldError]:
    text, wanted = rule.get("succeededIndexes"), rule.get("succeededCount")
    if text is None and wanted is None:
        return [required(path, "at least one of succeededCount or succeededIndexes must be specified")]
    errors: list[FieldError] = []
    named = 0
    if text is not None:
        if len(text) > _MOST_INDEX_TEXT:
            errors.append(FieldError(TOO_LONG, (path / "succeededIndexes").text, None, f"may not be more than {_MOST_INDEX_TEXT} bytes"))
        try:
            named = count_indexes(text, completions)
        except BadIndexes as error:
            errors.append(invalid(path / "succeededIndexes", text, f"error parsing succeededIndexes: {error}"))
    if wanted is not None:
        where = path / "succeededCount"
        errors += not_negative(wanted, where)
        if wanted > completions:
            errors.append(invalid(where, wanted, f"must be less than or equal to {completions} (the number of specified completions)"))
        if text is not None and wanted > named:
            words = f"must be less than or equal to {named} (the number of indexes in the specified succeededIndexes field)"
            errors.append(invalid(where, wanted, words))
    return errors


def _failure_policy(policy: Tree, spec: Tree, path: Path) -> list[FieldError]:
    rules, template = policy.get("rules", ()), spec.get("template", {}).get("spec", {})
    names = {one.get("name") for key in ("containers", "initContainers") for one in template.get(key, ())}
    errors = _at_most(_MOST_RULES, rules, path)
    for at, rule in enumerate(rules):
        where = path @ at
        errors += _action(rule.get("action", ""), spec, where / "action")
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions", ())
        if codes is not None:
            errors += _exit_codes(codes, names, where / "onExitCodes")
        errors += _conditions(conditions, where / "onPodConditions")
        if codes is not None and conditions:
            errors.append(invalid(where, OMITTED, "specifying both OnExitCodes and OnPodConditions is not supported"))
        if codes is None and not conditions:
            errors.append(invalid(where, OMITTED, "specifying one of OnExitCodes and OnPodConditions is required"))
    return errors


def _action(action: str, spec: Tree, where: Path) -> list[FieldError]:
    if action == "FailIndex" and "backoffLimitPerIndex" not in spec:
        return [invalid(where, action, "requires the backoffLimitPerIndex to be set")]
    return _named(action, _ACTIONS, where)


def _exit_codes(codes: Tree, names: set[Any], where: Path) -> list[FieldError]:
    operator, values = codes.get("operator", ""), codes.get("values", [])
    errors = _named(operator, _OPERATORS, where / "operator")
    container = codes.get("containerName")
    if container is not None and container not in names:
        words = "must be one of the container or initContainer names in the pod template"
        errors.append(invalid(where / "containerName", container, words))
    if not values:
        errors.append(invalid(where / "values", [], "at least one value is required"))
    errors += _at_most(_MOST_CODES, values, where / "values")
    for at, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(invalid(where / "values" @ at, value, "must not be 0 for the In operator"))
        if value in values[:at]:
            errors.append(duplicate(where / "values" @ at, value))
    if values != sorted(values):
        errors.append(invalid(where / "values", values, "must be ordered"))
    return errors


def _conditions(conditions: Any, where: Path) -> list[FieldError]:
    errors = _at_most(_MOST_RULES, conditions, where)
    for at, pattern in enumerate(conditions):
        errors += qualified_errors(pattern.get("type", ""), where @ at / "type")
        errors += _named(pattern.get("status", ""), _STATUSES, where @ at / "status")
    return errors


def _named(value: str, allowed: tuple[str, ...], where: Path) -> list[FieldError]:
    """One of some words; none at all is told which there are."""
    if not value:
        words = " ".join(f'"{one}"' for one in allowed)
        return [required(where, f"valid values: [{words}]")]
    return one_of(value, allowed, where)


def _at_most(limit: int, items: Any, where: Path) -> list[FieldError]:
    return [too_many(where, limit)] if len(items) > limit else []


# Changes -------------------------------------------------------------------------------------------------------------------


def _changes(tree: Tree, old: Tree) -> list[FieldError]:
    spec, before = tree.get("spec", {}), old.get("spec", {})
    fixed = ("selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
    errors = [invalid(_SPEC / key, spec.get(key), IMMUTABLE) for key in fixed if spec.get(key) != before.get(key)]
    wanted = spec.get("completions")
    if wanted != before.get("completions"):
        if spec.get("completionMode") != _INDEXED:
            errors.append(invalid(_SPEC / "completions", wanted, IMMUTABLE))
        elif wanted is not None and wanted != spec.get("parallelism"):
            errors.append(invalid(_SPEC / "completions", wanted, "can only be modified in tandem with spec.parallelism"))
    template = spec.get("template", {})
    if template != _unmoved(template, before.get("template", {}), movable=_is_at_rest(old)):
        errors.append(invalid(_SPEC / "template", template, IMMUTABLE))
    return errors


def _is_at_rest(old: Tree) -> bool:
    """A Job that is suspended, and that has no Pods for that reason or because it never had any."""
    status = old.get("status", {})
    suspended = any((one.get("type"), one.get("status")) == ("Suspended", "True") for one in status.get("conditions", ()))
    return bool(old.get("spec", {}).get("suspend")) and not status.get("active") and (suspended or "startTime" not in status)


def _unmoved(template: Tree, before: Tree, *, movable: bool) -> Tree:
    """The former template, with what of the new one may differ: where its Pods go, and what they ask for, while none is there."""
    if not movable:
        return before
    kept, spec = copy.deepcopy(before), template.get("spec", {})
    metadata = kept.setdefault("metadata", {})
    for key in ("labels", "annotations"):
        _take(metadata, template.get("metadata", {}), key)
    for key in _MOVABLE:
        _take(kept["spec"], spec, key)
    affinity = kept["spec"].setdefault("affinity", {})
    _take(affinity, spec.get("affinity", {}), "nodeAffinity")
    for key in ("containers", "initContainers"):
        for one, new in zip(kept["spec"].get(key, ()), spec.get(key, ()), strict=False):
            _take(one, new, "resources")
    for holder, key in ((kept["spec"], "affinity"), (kept, "metadata")):
        if not holder[key]:
            del holder[key]
    return kept


def _take(into: Tree, source: Tree, key: str) -> None:
    if key in source:
        into[key] = source[key]
    else:
        into.pop(key, None)
