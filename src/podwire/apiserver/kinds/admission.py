"""Rows of the group admissionregistration.k8s.io, version v1: webhooks and policies that judge writes.

Here: how they are written down. They are stored, checked and printed. Not here: how writes are put to them (``admission/``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/ and .../validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from typing import Any

from podwire.apiserver.admission import mutations, policies
from podwire.apiserver.cells import age
from podwire.apiserver.kind import AGE, NAME, STATUS, Column, Kind, Tree
from podwire.apiserver.kinds.webhook_client import client_errors, default_client
from podwire.apiserver.validation import FieldError, Path, dns_subdomain, duplicate, invalid, required, unsupported
from podwire.apiserver.validation_values import one_of, qualified_errors, selector_errors

_GROUP, _VERSION, _DEFINITION = "admissionregistration.k8s.io", "v1", "io.k8s.api.admissionregistration.v1."
_SPEC = Path("spec")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_LONGEST_WAIT_S = 30
_DENY_AND_WARN = (
    "must not contain both Deny and Warn "
    "(repeating the same validation failure information in the API response and headers serves no purpose)"
)


def _row(tree: Tree, now: datetime, *cells: Any) -> list[Any]:
    return [tree["metadata"]["name"], *cells, age(tree["metadata"].get("creationTimestamp"), now)]


# What is judged ----------------------------------------------------------------------------------------------------------------


def _default_match(match: Tree) -> None:
    """Fill in what objects are meant."""
    match.setdefault("matchPolicy", "Equivalent")
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for rules in ("rules", "resourceRules", "excludeResourceRules"):
        for rule in match.get(rules, ()):
            rule.setdefault("scope", "*")


def _match_errors(match: Tree, path: Path, *rules: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in rules:
        for index, rule in enumerate(match.get(key, ())):
            errors += _rule_errors(rule, path / key @ index)
    errors += one_of(match.get("matchPolicy", ""), ("Equivalent", "Exact"), path / "matchPolicy")
    for key in ("namespaceSelector", "objectSelector"):
        errors += selector_errors(match.get(key, {}), path / key)
    return errors


def _rule_errors(rule: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, others in (("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")):
        found = rule.get(key, [])
        if not found:
            errors.append(required(path / key))
        if len(found) > 1 and "*" in found:
            errors.append(invalid(path / key, found, f"if '*' is present, must not specify other {others}"))
    for index, word in enumerate(rule.get("operations", ())):
        errors += [] if word in _OPERATIONS else [unsupported(path / "operations" @ index, word, _OPERATIONS)]
    errors += [required(path / "apiVersions" @ index) for index, word in enumerate(rule.get("apiVersions", ())) if not word]
    resources = rule.get("resources", [])
    errors += [] if resources else [required(path / "resources")]
    errors += [required(path / "resources" @ index) for index, word in enumerate(resources) if not word]
    if len(resources) > 1 and "*/*" in resources:
        errors.append(invalid(path / "resources", resources, "if '*/*' is present, must not specify other resources"))
    scope = rule.get("scope", "*")
    return errors + (
        [] if scope in ("*", "Cluster", "Namespaced") else [unsupported(path / "scope", scope, ("*", "Cluster", "Namespaced"))]
    )


def _condition_errors(conditions: Iterable[Tree], path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, one in enumerate(conditions):
        name = one.get("name", "")
        errors += [] if one.get("expression", "").strip() else [required(path @ index / "expression")]
        errors += qualified_errors(name, path @ index / "name") if name else [required(path @ index / "name")]
        errors += [duplicate(path @ index / "name", name)] if name in seen else []
        seen.add(name)
    return errors


# Webhooks ------------------------------------------------------------------------------------------------------------------------


def _webhooks_row(tree: Tree, now: datetime) -> list[Any]:
    return _row(tree, now, len(tree.get("webhooks", ())))


def _default_webhooks(tree: Tree, *, mutating: bool) -> None:
    for webhook in tree.get("webhooks", ()):
        webhook.setdefault("failurePolicy", "Fail")
        webhook.setdefault("timeoutSeconds", 10)
        if mutating:
            webhook.setdefault("reinvocationPolicy", "Never")
        _default_match(webhook)
        default_client(webhook.get("clientConfig", {}))


def _validate_webhooks(tree: Tree, _old: Tree | None, *, mutating: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, webhook in enumerate(tree.get("webhooks", ())):
        path, name = Path("webhooks") @ index, webhook.get("name", "")
        errors += _domain_errors(name, path / "name")
        errors += [duplicate(path / "name", name)] if name in seen else []
        seen.add(name)
        errors += _webhook_errors(webhook, path)
        if mutating:
            errors += one_of(webhook.get("reinvocationPolicy", ""), ("IfNeeded", "Never"), path / "reinvocationPolicy")
    return errors


def _domain_errors(name: str, path: Path) -> list[FieldError]:
    if not name:
        return [required(path)]
    if texts := dns_subdomain(name):
        return [invalid(path, name, ",".join(texts))]
    return [invalid(path, name, "should be a domain with at least three segments separated by dots")] if name.count(".") < 2 else []


def _webhook_errors(webhook: Tree, path: Path) -> list[FieldError]:
    errors = _match_errors(webhook, path, "rules")
    errors += one_of(webhook.get("failurePolicy", ""), ("Fail", "Ignore"), path / "failurePolicy")
    effects, allowed = webhook.get("sideEffects", ""), ("None", "NoneOnDryRun")
    if not effects:
        errors.append(required(path / "sideEffects", f"must specify one of {', '.join(allowed)}"))
    elif effects not in allowed:
        errors.append(unsupported(path / "sideEffects", effects, allowed))
    wait_s = webhook.get("timeoutSeconds", 10)
    if not 1 <= wait_s <= _LONGEST_WAIT_S:
        errors.append(invalid(path / "timeoutSeconds", wait_s, "the timeout value must be between 1 and 30 seconds"))
    errors += _version_errors(webhook.get("admissionReviewVersions", []), path / "admissionReviewVersions")
    conditions, where = webhook.get("matchConditions", ()), path / "matchConditions"
    errors += _condition_errors(conditions, where) or policies.condition_errors(conditions, where)
    return errors + client_errors(webhook.get("clientConfig", {}), path / "clientConfig")


def _version_errors(versions: list[str], path: Path) -> list[FieldError]:
    if not versions:
        return [required(path, "must specify one of v1, v1beta1")]
    return [] if {"v1", "v1beta1"} & set(versions) else [invalid(path, versions, "must include at least one of v1, v1beta1")]


# Policies ------------------------------------------------------------------------------------------------------------------------


def _policy_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    about = spec.get("paramKind")
    shown = f"{about.get('apiVersion', '')}/{about.get('kind', '')}" if about else "<unset>"
    return _row(tree, now, len(spec.get("validations", ())), shown)


def _default_policy(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    if "matchConstraints" in spec:
        _default_match(spec["matchConstraints"])


def _head_errors(spec: Tree) -> list[FieldError]:
    """Check what policies of both sorts have."""
    errors = one_of(spec.get("failurePolicy", ""), ("Fail", "Ignore"), _SPEC / "failurePolicy")
    if "paramKind" in spec:
        errors += [required(_SPEC / "paramKind" / key) for key in ("apiVersion", "kind") if not spec["paramKind"].get(key)]
    match, path = spec.get("matchConstraints"), _SPEC / "matchConstraints"
    if match is None:
        errors.append(required(path))
    else:
        errors += _match_errors(match, path, "resourceRules", "excludeResourceRules")
        errors += [] if match.get("resourceRules") else [required(path / "resourceRules")]
    errors += _condition_errors(spec.get("matchConditions", ()), _SPEC / "matchConditions")
    for index, one in enumerate(spec.get("variables", ())):
        where = _SPEC / "variables" @ index
        errors += [required(where / key, f"{key} is not specified") for key in ("name", "expression") if not one.get(key, "").strip()]
    return errors


def _validate_policy(tree: Tree, _old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = _head_errors(spec)
    validations, annotations = spec.get("validations", ()), spec.get("auditAnnotations", ())
    if not validations and not annotations:
        text = "validations or auditAnnotations must contain at least one item"
        errors += [required(_SPEC / key, text) for key in ("validations", "auditAnnotations")]
    for index, one in enumerate(validations):
        if not one.get("expression", "").strip():
            errors.append(required(_SPEC / "validations" @ index / "expression", "expression is not specified"))
    errors = errors or policies.errors(spec)
    for index, one in enumerate(annotations):
        errors += qualified_errors(one.get("key", ""), _SPEC / "auditAnnotations" @ index / "key")
        if not one.get("valueExpression", "").strip():
            errors.append(required(_SPEC / "auditAnnotations" @ index / "valueExpression", "valueExpression is not specified"))
    return errors


def _mutating_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    about = spec.get("paramKind")
    shown = f"{about.get('apiVersion', '')}/{about.get('kind', '')}" if about else "<unset>"
    return _row(tree, now, len(spec.get("mutations", ())), shown)


def _validate_mutating(tree: Tree, _old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = _head_errors(spec) + _operation_errors(spec.get("matchConstraints", {}), _SPEC / "matchConstraints")
    found = spec.get("mutations", ())
    if not found:
        errors.append(required(_SPEC / "mutations", "mutations must contain at least one item"))
    for index, one in enumerate(found):
        errors += _mutation_errors(one, _SPEC / "mutations" @ index)
    errors += one_of(spec.get("reinvocationPolicy", ""), ("IfNeeded", "Never"), _SPEC / "reinvocationPolicy")
    return errors or mutations.errors(spec)


def _operation_errors(match: Tree, path: Path) -> list[FieldError]:
    """What is deleted cannot be changed."""
    where, allowed = path / "resourceRules" / "operations", tuple(word for word in _OPERATIONS if word != "DELETE")
    named = [word for rule in match.get("resourceRules", ()) for word in rule.get("operations", ())]
    return [unsupported(where, word, allowed) for word in named if word not in allowed]


def _mutation_errors(mutation: Tree, path: Path) -> list[FieldError]:
    sort, places = mutation.get("patchType", ""), mutations.PLACES
    if sort not in places:
        return one_of(sort, tuple(places), path / "patchType")
    errors: list[FieldError] = []
    for other, place in places.items():
        if other != sort and place in mutation:
            errors.append(invalid(path / place, f"{{{place}}}", f"must not be specified when patchType is {sort}"))
    said = mutation.get(places[sort])
    if said is None:
        return [required(path / places[sort], f"must be specified when patchType is {sort}"), *errors]
    if not said.get("expression", "").strip():
        errors.insert(0, required(path / places[sort] / "expression"))
    return errors


def _binding_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    about = spec.get("paramRef")
    shown = "<unset>"
    if about:
        shown = f"{about.get('namespace') or '*'}/{about['name']}" if about.get("name") else "*"
    return _row(tree, now, spec.get("policyName", ""), shown)


def _default_binding(tree: Tree) -> None:
    if match := tree.setdefault("spec", {}).get("matchResources"):
        _default_match(match)


def _validate_mutating_binding(tree: Tree, old: Tree | None) -> list[FieldError]:
    match: Tree = tree.get("spec", {}).get("matchResources") or {}
    return _bound_errors(tree, old) + _operation_errors(match, _SPEC / "matchResources")


def _bound_errors(tree: Tree, _old: Tree | None) -> list[FieldError]:
    """Check what bindings of both sorts have."""
    spec = tree.get("spec", {})
    errors = [] if spec.get("policyName") else [required(_SPEC / "policyName")]
    if about := spec.get("paramRef"):
        path = _SPEC / "paramRef"
        if not about.get("name") and "selector" not in about:
            errors.append(required(path, "one of name or selector must be specified"))
        allowed = ("Allow", "Deny")
        errors += one_of(about.get("parameterNotFoundAction", ""), allowed, path / "parameterNotFoundAction")
    if match := spec.get("matchResources"):
        errors += _match_errors(match, _SPEC / "matchResources", "resourceRules", "excludeResourceRules")
    return errors


def _validate_binding(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors = _bound_errors(tree, old)
    actions, path = spec.get("validationActions", []), _SPEC / "validationActions"
    errors += [] if actions else [required(path)]
    for index, action in enumerate(actions):
        errors += [] if action in ("Audit", "Deny", "Warn") else [unsupported(path @ index, action, ("Audit", "Deny", "Warn"))]
        errors += [duplicate(path @ index, action)] if action in actions[:index] else []
    if "Deny" in actions and "Warn" in actions:
        errors.append(invalid(path, actions, _DENY_AND_WARN))
    return errors


def _webhooks(plural: str, kind: str, *, mutating: bool) -> Kind:
    return Kind(
        _GROUP,
        _VERSION,
        plural,
        kind,
        False,
        _DEFINITION + kind,
        categories=("api-extensions",),
        columns=(NAME, Column("Webhooks", "integer", description="The number of webhooks."), AGE),
        row=_webhooks_row,
        default=partial(_default_webhooks, mutating=mutating),
        validate=partial(_validate_webhooks, mutating=mutating),
    )


VALIDATING_WEBHOOKS = _webhooks("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", mutating=False)
MUTATING_WEBHOOKS = _webhooks("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", mutating=True)
POLICY = Kind(
    _GROUP,
    _VERSION,
    "validatingadmissionpolicies",
    "ValidatingAdmissionPolicy",
    False,
    _DEFINITION + "ValidatingAdmissionPolicy",
    categories=("api-extensions",),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column("Validations", "integer", description="The number of expressions."),
        Column("ParamKind", description="What sets their parameters."),
        AGE,
    ),
    row=_policy_row,
    default=_default_policy,
    validate=_validate_policy,
)
POLICY_BINDING = Kind(
    _GROUP,
    _VERSION,
    "validatingadmissionpolicybindings",
    "ValidatingAdmissionPolicyBinding",
    False,
    _DEFINITION + "ValidatingAdmissionPolicyBinding",
    categories=("api-extensions",),
    columns=(
        NAME,
        Column("PolicyName", description="The policy that is put in force."),
        Column("ParamRef", description="Its parameters."),
        AGE,
    ),
    row=_binding_row,
    default=_default_binding,
    validate=_validate_binding,
)

MUTATING_POLICY = Kind(
    _GROUP,
    _VERSION,
    "mutatingadmissionpolicies",
    "MutatingAdmissionPolicy",
    False,
    _DEFINITION + "MutatingAdmissionPolicy",
    categories=("api-extensions",),
    columns=(
        NAME,
        Column("Mutations", "integer", description="The number of expressions."),
        Column("ParamKind", description="What sets their parameters."),
        AGE,
    ),
    row=_mutating_row,
    default=_default_policy,
    validate=_validate_mutating,
)
MUTATING_POLICY_BINDING = Kind(
    _GROUP,
    _VERSION,
    "mutatingadmissionpolicybindings",
    "MutatingAdmissionPolicyBinding",
    False,
    _DEFINITION + "MutatingAdmissionPolicyBinding",
    categories=("api-extensions",),
    columns=POLICY_BINDING.columns,
    row=_binding_row,
    default=_default_binding,
    validate=_validate_mutating_binding,
)

KINDS = (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS, POLICY, POLICY_BINDING, MUTATING_POLICY, MUTATING_POLICY_BINDING)
