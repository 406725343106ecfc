"""ValidatingAdmissionPolicies: rules in CEL that writes are put to, where a binding says so.

A policy is compiled once. What a binding says is done with what fails, and what is noted for the audit log, is in ``verdicts.py``.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.admission.matching import EXEMPT, REQUEST, VARIABLES, Alike, Authority, Conditions, LabelsOf, meant, selected
from podwire.apiserver.admission.verdicts import Failed, Note, Verdict
from podwire.apiserver.cel import authorization, types
from podwire.apiserver.cel.budget import Budget, OutOfBudget
from podwire.apiserver.cel.check import Program, Rejected, Structs, compile_text, no_structs
from podwire.apiserver.cel.types import Type
from podwire.apiserver.cel.values import Fault, type_of
from podwire.apiserver.kind import Kind
from podwire.apiserver.validation import FieldError, Path, invalid

Tree = dict[str, Any]
_VARIABLES: Mapping[str, Type] = {
    "object": types.DYN,
    "oldObject": types.DYN,
    "request": REQUEST,
    "namespaceObject": types.DYN,
    **authorization.VARIABLES,
}
_LONGEST_MESSAGE = 5 * 1024  # bytes


def _scope(spec: Tree) -> dict[str, Type]:
    return {**_VARIABLES, "params": types.DYN} if "paramKind" in spec else dict(_VARIABLES)


def for_messages(scope: Mapping[str, Type]) -> dict[str, Type]:
    """Give the scope of an expression that makes a message: it asks nobody."""
    return {name: kind for name, kind in scope.items() if name not in authorization.VARIABLES}


@dataclass(frozen=True)
class _Validation:
    program: Program
    expression: str
    message: str
    message_program: Program | None
    reason: str


@dataclass(frozen=True)
class _Annotation:
    key: str
    expression: str
    program: Program


class Head:
    """What policies have that judge and those that change: whom they mean, conditions, variables. Compiled once. Raises Rejected."""

    def __init__(self, tree: Tree, structs: Structs = no_structs) -> None:
        spec = tree["spec"]
        self.name = str(tree["metadata"]["name"])
        self.match: Tree = spec.get("matchConstraints", {})
        self.param_kind: Tree | None = spec.get("paramKind")
        self.must_work = spec.get("failurePolicy", "Fail") == "Fail"
        self.scope = _scope(spec)
        self.conditions = Conditions(spec.get("matchConditions", ()), self.scope)
        self.variables: list[tuple[str, Program]] = []
        known: dict[str, Type] = {}
        for one in spec.get("variables", ()):
            scope = {**self.scope, "variables": Type("variables", fields=dict(known))}
            program = compile_text(one["expression"], scope, structs=structs)
            self.variables.append((one["name"], program))
            known[one["name"]] = program.type
        self.scope["variables"] = Type("variables", fields=known)

    def lay_out(self, values: dict[str, Any], budget: Budget) -> dict[str, Fault]:
        """Work the variables out, into the values of an expression; give those that could not be: it matters where they are named.

        Raises OutOfBudget.
        """
        wrong: dict[str, Fault] = {}
        values["variables"] = variables = {}
        for name, program in self.variables:
            try:
                variables[name] = budget.evaluate(program, values)
            except OutOfBudget:
                raise
            except Fault as fault:
                wrong[name] = fault
        return wrong


class Policy(Head):
    """One ValidatingAdmissionPolicy."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree)
        spec = tree["spec"]
        self.validations = [_validation(one, self.scope) for one in spec.get("validations", ())]
        said = [(one["key"], one["valueExpression"]) for one in spec.get("auditAnnotations", ())]
        self.annotations = [_Annotation(key, text, compile_text(text, self.scope)) for key, text in said]


def _means(match: Tree, asked: Attributes, alike: Alike, labels: LabelsOf) -> Kind | None:
    """Give the kind in which the constraints of a policy, or of a binding, mean a request; None when they do not."""
    policy = match.get("matchPolicy", "Equivalent")
    if meant(match.get("excludeResourceRules", ()), policy, asked, alike) is not None:
        return None
    kind: Kind | None = asked.own
    if rules := match.get("resourceRules"):
        kind = meant(rules, policy, asked, alike)
    return kind if kind is not None and selected(match, asked, labels) else None


def _validation(said: Tree, scope: Mapping[str, Type]) -> _Validation:
    expression = said["expression"]
    return _Validation(
        compile_text(expression, scope, types.BOOL),
        expression.strip(),
        said.get("message", "").strip(),
        compile_text(said["messageExpression"], for_messages(scope), types.STRING) if said.get("messageExpression") else None,
        said.get("reason") or "Invalid",
    )


P = TypeVar("P", bound=Head)


@dataclass(frozen=True)
class Matter(Generic[P]):
    """A policy that a request is put to, with the binding that says so and the kind in which the policy wants it."""

    policy: P
    binding_name: str
    binding: Tree
    kind: Kind

    @property
    def reference(self) -> Tree | None:
        """Where its parameters are, None when it has none."""
        return self.binding.get("paramRef") if self.policy.param_kind is not None else None

    def checked(self, params: Sequence[Tree]) -> Sequence[Tree | None] | Fault:
        """Give the parameters to put it with, of those that were found."""
        if self.reference is None:
            return (None,)
        if not params and self.reference.get("parameterNotFoundAction") == "Deny":
            return Fault("no params found for policy binding with `Deny` parameterNotFoundAction")
        return params


class Bound(Generic[P]):
    """Policies of one sort, and the bindings that put them in force. ``namespace`` gives a Namespace, ``authority`` who may do what."""

    def __init__(self, labels: LabelsOf, alike: Alike, namespace: Callable[[str], Tree | None], authority: Authority) -> None:
        self._labels = labels
        self._alike = alike
        self._namespace = namespace
        self._authority = authority
        self.policies: dict[str, P] = {}
        self.bindings: dict[str, Tree] = {}

    def matters(self, asked: Attributes) -> list[Matter[P]]:
        """Give the policies that a request is put to."""
        if asked.kind.resource in EXEMPT:
            return []
        found: list[Matter[P]] = []
        for name in sorted(self.bindings):
            binding = self.bindings[name]["spec"]
            policy = self.policies.get(binding.get("policyName", ""))
            if policy is None:
                continue
            kind = _means(policy.match, asked, self._alike, self._labels)
            bound = binding.get("matchResources") or {}
            if kind is not None and _means(bound, asked, self._alike, self._labels) is not None:
                found.append(Matter(policy, name, binding, kind))
        return found

    def values(self, asked: Attributes, param: Tree | None) -> dict[str, Any]:
        """Give the values that expressions see, but for variables."""
        return {
            "object": asked.tree,
            "oldObject": asked.old,
            "request": asked.review(""),
            "namespaceObject": self._namespace(asked.namespace) if asked.namespace else None,
            "params": param,
            **self._authority(asked),
        }


class Judge(Bound[Policy]):
    """Puts writes to ValidatingAdmissionPolicies."""

    def put(self, matter: Matter[Policy], asked: Attributes, params: Sequence[Tree | None] | Fault, verdict: Verdict) -> None:
        """Put a request, as its policy wants it, to the policy, and take what it says into a verdict."""
        policy, binding = matter.policy, matter.binding_name
        if isinstance(params, Fault):
            if policy.must_work:
                verdict.deny(policy.name, binding, Failed(f"failed to configure binding: {params}"))
            return
        for param in params:
            try:
                failures, notes = self._said(policy, asked, param)
            except Fault as fault:
                failures, notes = [Failed(str(fault))] if policy.must_work else [], []
            for failed in failures:
                verdict.fail(policy.name, binding, matter.binding.get("validationActions", ()), failed)
            for note in notes:
                verdict.note(policy.name, binding, note)

    def _said(self, policy: Policy, asked: Attributes, param: Tree | None) -> tuple[list[Failed], list[Note]]:
        """Give what a policy says of a request. Raises Fault."""
        values = self.values(asked, param)
        if policy.conditions and not policy.conditions.hold(values):
            return [], []
        budget = Budget()
        wrong = policy.lay_out(values, budget)
        failures, notes = [], []
        for place, one in enumerate(policy.validations):
            try:
                if budget.evaluate(one.program, values) is not True:
                    failures.append(Failed(_message(one, values), one.reason, place))
            except Fault as fault:
                if told := _told(policy, one.expression, fault, wrong):
                    failures.append(Failed(told, place=place))
        budget = Budget()
        for annotation in policy.annotations:
            try:
                notes.append(_note(annotation, budget.evaluate(annotation.program, values)))
            except Fault as fault:
                notes.append(Note(annotation.key, wrong=_told(policy, annotation.expression, fault, wrong)))
        return failures, notes


def _told(policy: Policy, expression: str, fault: Fault, wrong: Mapping[str, Fault]) -> str:
    """Say that an expression could not be worked out; nothing where that does not matter. Raises OutOfBudget."""
    if isinstance(fault, OutOfBudget):
        raise fault
    return f"expression '{expression}' resulted in error: {cause(fault, wrong)}" if policy.must_work else ""


def _note(one: _Annotation, value: Any) -> Note:
    if value is None or type(value) is str:
        return Note(one.key, (value or "").strip())
    told = f"valueExpression '{one.expression}' resulted in unsupported return type: {type_of(value)}. "
    return Note(one.key, wrong=told + "Return type must be either string or null.")


def cause(fault: Fault, wrong: Mapping[str, Fault]) -> Fault:
    """A variable that could not be worked out is told by what went wrong with it."""
    name = str(fault).removeprefix("no such key: ")
    return Fault(f'composited variable "{name}" fails to evaluate: {wrong[name]}') if name in wrong else fault


def _message(validation: _Validation, values: Mapping[str, Any]) -> str:
    if validation.message_program is not None:
        try:
            text = validation.message_program.evaluate(values)[0]
        except Fault:
            text = None
        text = text.strip() if isinstance(text, str) else ""
        if text and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE:
            return text
    return validation.message or f"failed expression: {validation.expression}"


# What is wrong with a policy -------------------------------------------------------------------------------------------------


class Looking:
    """Compiles the expressions of a policy one after the other and keeps what is wrong with them, those that both sorts have first."""

    def __init__(self, spec: Tree, structs: Structs = no_structs) -> None:
        self.found: list[FieldError] = []
        self._scope = _scope(spec)
        self._structs = structs
        self._known: dict[str, Type] = {}
        path = Path("spec")
        for index, one in enumerate(spec.get("matchConditions", ())):
            self.look(path / "matchConditions" @ index / "expression", one.get("expression", "true"), types.BOOL)
        for index, one in enumerate(spec.get("variables", ())):
            kind = self.look(path / "variables" @ index / "expression", one.get("expression", "true"), None)
            self._known[one.get("name", "")] = kind

    def look(self, where: Path, text: str, wanted: Type | None, *, is_message: bool = False) -> Type:
        """Compile one expression; give its type."""
        own = for_messages(self._scope) if is_message else self._scope
        scope = {**own, "variables": Type("variables", fields=dict(self._known))}
        kind, wrong = _looked(where, text, scope, wanted, self._structs)
        self.found += wrong
        return kind


def _looked(where: Path, text: str, scope: Mapping[str, Type], wanted: Type | None, structs: Structs) -> tuple[Type, list[FieldError]]:
    """Compile an expression; give its type, and what is wrong with it."""
    try:
        return compile_text(text, scope, wanted, structs).type, []
    except Rejected as error:
        told = str(error)
        return types.DYN, [invalid(where, text, told if told.startswith("must evaluate") else f"compilation failed: {told}")]


def condition_errors(conditions: Iterable[Tree], path: Path) -> list[FieldError]:
    """Give the match conditions of a webhook that do not compile."""
    found: list[FieldError] = []
    for index, one in enumerate(conditions):
        found += _looked(path @ index / "expression", one.get("expression", ""), VARIABLES, types.BOOL, no_structs)[1]
    return found


def errors(spec: Tree) -> list[FieldError]:
    """Give the expressions of a ValidatingAdmissionPolicy that do not compile."""
    path, looking = Path("spec"), Looking(spec)
    look = looking.look
    for index, one in enumerate(spec.get("validations", ())):
        where = path / "validations" @ index
        look(where / "expression", one.get("expression", "true"), types.BOOL)
        if said := one.get("messageExpression"):
            look(where / "messageExpression", said, types.STRING, is_message=True)
    for index, one in enumerate(spec.get("auditAnnotations", ())):
        where, text = path / "auditAnnotations" @ index / "valueExpression", one.get("valueExpression", "''")
        kind = look(where, text, None)
        if not (types.fits(types.STRING, kind) or kind == types.NULL):
            looking.found.append(invalid(where, text, f"must evaluate to one of [string null_type] but got {kind}"))
    return looking.found
