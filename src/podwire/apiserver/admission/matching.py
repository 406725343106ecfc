"""Which requests a webhook or a policy is asked about: rules, selectors, conditions.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-rules
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.cel import authorization, types
from podwire.apiserver.cel.budget import OF_CONDITIONS, Budget, OutOfBudget
from podwire.apiserver.cel.check import Program, compile_text
from podwire.apiserver.cel.types import Type
from podwire.apiserver.cel.values import Fault
from podwire.apiserver.kind import Kind

Tree = dict[str, Any]
Labels = Mapping[str, str]
LabelsOf = Callable[[str], Labels]  # of a namespace
Alike = Callable[[Kind], Sequence[Kind]]  # the kinds in which the objects of one are served

# What judges writes is not judged itself: a wrong rule could never be taken back.
EXEMPT = frozenset(
    f"{plural}.admissionregistration.k8s.io"
    for plural in (
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    )
)

_KIND = {"group": types.STRING, "version": types.STRING, "kind": types.STRING}
_RESOURCE = {"group": types.STRING, "version": types.STRING, "resource": types.STRING}
_USER = {
    "username": types.STRING,
    "uid": types.STRING,
    "groups": types.list_of(types.STRING),
    "extra": types.map_of(types.STRING, types.list_of(types.STRING)),
}
REQUEST = Type(
    "kubernetes.AdmissionRequest",
    fields={
        **dict.fromkeys(("kind", "requestKind"), Type("kubernetes.GroupVersionKind", fields=_KIND)),
        **dict.fromkeys(("resource", "requestResource"), Type("kubernetes.GroupVersionResource", fields=_RESOURCE)),
        **dict.fromkeys(("subResource", "requestSubResource", "name", "namespace", "operation", "uid"), types.STRING),
        "userInfo": Type("kubernetes.UserInfo", fields=_USER),
        "dryRun": types.BOOL,
        **dict.fromkeys(("options", "object", "oldObject"), types.DYN),
    },
)
VARIABLES: Mapping[str, Type] = {"object": types.DYN, "oldObject": types.DYN, "request": REQUEST, **authorization.VARIABLES}
Authority = Callable[[Attributes], Mapping[str, Any]]  # gives the values of ``authorizer``


def selects(selector: Tree | None, labels: Labels) -> bool:
    """Say whether a LabelSelector selects something with these labels."""
    if not selector:
        return True
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_requirement(one, labels) for one in selector.get("matchExpressions", ()))


def _requirement(requirement: Tree, labels: Labels) -> bool:
    key, values = requirement["key"], requirement.get("values", ())
    match requirement["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
    return key not in labels


def meant(rules: Sequence[Tree], policy: str, asked: Attributes, alike: Alike) -> Kind | None:
    """Give the kind in which a rule means a request, None when none does: the client's own before others of the same objects.

    ``policy``: whether others count (``Equivalent``). ``alike`` gives them.
    """
    own = asked.own
    if any(_rule(rule, asked, own) for rule in rules):
        return own
    if policy != "Equivalent":
        return None
    return next((kind for rule in rules for kind in alike(own) if kind is not own and _rule(rule, asked, kind)), None)


def _rule(rule: Tree, asked: Attributes, kind: Kind) -> bool:
    if not {"*", asked.operation} & set(rule.get("operations", ())) or not {"*", kind.group} & set(rule.get("apiGroups", ())):
        return False
    if not {"*", kind.version} & set(rule.get("apiVersions", ())):
        return False
    if rule.get("resourceNames") and asked.name not in rule["resourceNames"]:
        return False
    scope = rule.get("scope", "*")
    if scope != "*" and (scope == "Namespaced") != (kind.namespaced):
        return False
    return any(_resource(word, kind, asked.subresource) for word in rule.get("resources", ()))


def _resource(word: str, kind: Kind, part: str) -> bool:
    plural, _, wanted = word.partition("/")
    return plural in ("*", kind.plural) and (wanted == part or (wanted == "*"))


def selected(match: Tree, asked: Attributes, namespace_labels: LabelsOf) -> bool:
    """Say whether selectors of namespaces and objects mean a request."""
    wanted = match.get("namespaceSelector")
    if wanted:
        if asked.kind.resource == "namespaces":
            tree = asked.tree or asked.old or {}
            if not selects(wanted, tree["metadata"].get("labels", {})):
                return False
        elif asked.kind.namespaced and not selects(wanted, namespace_labels(asked.namespace)):
            return False
    wanted = match.get("objectSelector")
    if not wanted:
        return True
    return any(selects(wanted, tree["metadata"].get("labels", {})) for tree in (asked.tree, asked.old) if tree is not None)


class Conditions:
    """The match conditions of a webhook or a policy. Compiled once. Raises Rejected."""

    def __init__(self, conditions: Iterable[Tree], variables: Mapping[str, Type] = VARIABLES) -> None:
        self._programs: list[tuple[str, Program]] = [
            (one["expression"], compile_text(one["expression"], variables, types.BOOL)) for one in conditions
        ]

    def hold(self, values: Mapping[str, Any]) -> bool:
        """Say whether all hold. One that is false decides, whatever goes wrong with others. Raises Fault."""
        wrong: list[str] = []
        budget = Budget(OF_CONDITIONS)
        for text, program in self._programs:
            try:
                if budget.evaluate(program, values) is not True:
                    return False
            except OutOfBudget:
                raise
            except Fault as fault:
                wrong.append(f"expression '{text}' resulted in error: {fault}")
        if wrong:
            raise Fault(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
        return True

    def __bool__(self) -> bool:
        return bool(self._programs)
