"""ValidatingAdmissionPolicies: rules in CEL that writes are put to, where a binding says so.

A policy is compiled once. What a binding says is done with what fails: it is denied, or the client is warned.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from podwire.apiserver import status
from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.admission.matching import EXEMPT, REQUEST, Conditions, LabelsOf, rules_match, selected
from podwire.apiserver.cel import types
from podwire.apiserver.cel.check import Program, Rejected, compile_text
from podwire.apiserver.cel.types import Type
from podwire.apiserver.cel.values import Fault
from podwire.apiserver.validation import FieldError, Path, invalid

Tree = dict[str, Any]
_VARIABLES: Mapping[str, Type] = {
    "object": types.DYN,
    "oldObject": types.DYN,
    "request": REQUEST,
    "namespaceObject": types.DYN,
}
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}


def _scope(spec: Tree) -> dict[str, Type]:
    return {**_VARIABLES, "params": types.DYN} if "paramKind" in spec else dict(_VARIABLES)


@dataclass(frozen=True)
class _Validation:
    program: Program
    expression: str
    message: str
    message_program: Program | None
    reason: str


class Policy:
    """One policy, compiled. Raises Rejected."""

    def __init__(self, tree: Tree) -> None:
        spec = tree["spec"]
        self.name = str(tree["metadata"]["name"])
        self.match: Tree = spec.get("matchConstraints", {})
        self.param_kind: Tree | None = spec.get("paramKind")
        self.must_work = spec.get("failurePolicy", "Fail") == "Fail"
        scope = _scope(spec)
        self.conditions = Conditions(spec.get("matchConditions", ()), scope)
        self.variables: list[tuple[str, Program]] = []
        known: dict[str, Type] = {}
        for one in spec.get("variables", ()):
            program = compile_text(one["expression"], {**scope, "variables": Type("variables", fields=dict(known))})
            self.variables.append((one["name"], program))
            known[one["name"]] = program.type
        scope["variables"] = Type("variables", fields=known)
        self.validations = [_validation(one, scope) for one in spec.get("validations", ())]
        self.annotations = [compile_text(one["valueExpression"], scope) for one in spec.get("auditAnnotations", ())]

    def means(self, match: Tree, asked: Attributes, versions: list[str], labels: LabelsOf) -> bool:
        """Say whether a request is meant by the policy's constraints, or by a binding's."""
        if match.get("matchPolicy", "Equivalent") != "Equivalent":
            versions = [asked.kind.version]
        if match.get("excludeResourceRules") and rules_match(match["excludeResourceRules"], asked, versions):
            return False
        if match.get("resourceRules") and not rules_match(match["resourceRules"], asked, versions):
            return False
        return selected(match, asked, labels)


def _validation(said: Tree, scope: Mapping[str, Type]) -> _Validation:
    expression = said["expression"]
    return _Validation(
        compile_text(expression, scope, types.BOOL),
        expression.strip(),
        said.get("message", "").strip(),
        compile_text(said["messageExpression"], scope, types.STRING) if said.get("messageExpression") else None,
        said.get("reason") or "Invalid",
    )


@dataclass(frozen=True)
class _Failed:
    message: str
    reason: str


class Judge:
    """Puts writes to policies. ``params`` finds the objects that a binding names: each, or a Fault."""

    def __init__(self, labels: LabelsOf, versions: Callable[[str, str], list[str]], namespace: Callable[[str], Tree | None]) -> None:
        self._labels = labels
        self._versions = versions
        self._namespace = namespace
        self.policies: dict[str, Policy] = {}
        self.bindings: dict[str, Tree] = {}
        self.params: Callable[[Tree, Tree, str], Iterable[Tree | None]] = lambda _kind, _reference, _namespace: (None,)

    def validate(self, asked: Attributes) -> None:
        """Put a request to every policy that is bound. Raises Failure of the first that denies it."""
        if asked.kind.resource in EXEMPT:
            return
        for name in sorted(self.bindings):
            binding = self.bindings[name]["spec"]
            policy = self.policies.get(binding.get("policyName", ""))
            if policy is None:
                continue
            versions = self._versions(asked.kind.group, asked.kind.plural)
            bound = binding.get("matchResources") or {}
            if not policy.means(policy.match, asked, versions, self._labels) or not policy.means(bound, asked, versions, self._labels):
                continue
            for failed in self._failures(policy, binding, asked):
                self._act(policy, name, binding, asked, failed)

    def _failures(self, policy: Policy, binding: Tree, asked: Attributes) -> Iterator[_Failed]:
        try:
            for param in self._params(policy, binding, asked):
                yield from self._put(policy, asked, param)
        except Fault as fault:
            if policy.must_work:
                yield _Failed(str(fault), "Invalid")

    def _params(self, policy: Policy, binding: Tree, asked: Attributes) -> Iterable[Tree | None]:
        reference = binding.get("paramRef")
        if policy.param_kind is None or reference is None:
            return (None,)
        found = list(self.params(policy.param_kind, reference, asked.namespace))
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise Fault("no params found for policy binding with `Deny` parameterNotFoundAction")
        return found

    def _put(self, policy: Policy, asked: Attributes, param: Tree | None) -> Iterator[_Failed]:
        values = {
            "object": asked.tree,
            "oldObject": asked.old,
            "request": asked.review(""),
            "namespaceObject": self._namespace(asked.namespace) if asked.namespace else None,
            "params": param,
        }
        if policy.conditions and not policy.conditions.hold(values):
            return
        values["variables"] = variables = {}
        wrong: dict[str, Fault] = {}
        for name, program in policy.variables:
            try:
                variables[name] = program.evaluate(values)[0]
            except Fault as fault:
                wrong[name] = fault  # it matters where the variable is named
        for one in policy.validations:
            try:
                holds = one.program.evaluate(values)[0] is True
            except Fault as fault:
                fault = _cause(fault, wrong)
                if policy.must_work:
                    yield _Failed(f"expression '{one.expression}' resulted in error: {fault}", one.reason)
                continue
            if not holds:
                yield _Failed(_message(one, values), one.reason)

    def _act(self, policy: Policy, name: str, binding: Tree, asked: Attributes, failed: _Failed) -> None:
        actions = binding.get("validationActions", ())
        if "Warn" in actions:
            asked.warnings.append(
                f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' with binding '{name}': {failed.message}"
            )
        if "Deny" not in actions:
            return
        message = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{name}' denied request: {failed.message}"
        failure = status.forbidden(asked.kind, asked.name, message, [{"message": message}])
        raise status.Failure(_CODES.get(failed.reason, 422), failed.reason, failure.message, failure.details)


def _cause(fault: Fault, wrong: Mapping[str, Fault]) -> Fault:
    """A variable that could not be worked out is told by what went wrong with it."""
    name = str(fault).removeprefix("no such key: ")
    return Fault(f'composited variable "{name}" fails to evaluate: {wrong[name]}') if name in wrong else fault


def _message(validation: _Validation, values: Mapping[str, Any]) -> str:
    if validation.message_program is not None:
        try:
            text = validation.message_program.evaluate(values)[0]
        except Fault:
            text = None
        if isinstance(text, str) and text.strip() and "\n" not in text.strip():
            return text.strip()
    return validation.message or f"failed expression: {validation.expression}"


# What is wrong with a policy -------------------------------------------------------------------------------------------------


def errors(spec: Tree) -> list[FieldError]:
    """Give the expressions of a policy that do not compile."""
    path, scope = Path("spec"), _scope(spec)
    found: list[FieldError] = []
    known: dict[str, Type] = {}

    def look(where: Path, text: str, wanted: Type | None, what: str) -> Type:
        try:
            return compile_text(text, {**scope, "variables": Type("variables", fields=dict(known))}, wanted).type
        except Rejected as error:
            told = f"must evaluate to {what}" if str(error).startswith("must evaluate") else f"compilation failed: {error}"
            found.append(invalid(where, text, told))
            return types.DYN

    for index, one in enumerate(spec.get("matchConditions", ())):
        look(path / "matchConditions" @ index / "expression", one.get("expression", "true"), types.BOOL, "bool")
    for index, one in enumerate(spec.get("variables", ())):
        known[one.get("name", "")] = look(path / "variables" @ index / "expression", one.get("expression", "true"), None, "")
    for index, one in enumerate(spec.get("validations", ())):
        where = path / "validations" @ index
        look(where / "expression", one.get("expression", "true"), types.BOOL, "bool")
        if said := one.get("messageExpression"):
            look(where / "messageExpression", said, types.STRING, "string")
    for index, one in enumerate(spec.get("auditAnnotations", ())):
        look(path / "auditAnnotations" @ index / "valueExpression", one.get("valueExpression", "''"), None, "")
    return found
