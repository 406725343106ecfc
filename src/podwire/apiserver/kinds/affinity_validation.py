"""What makes the affinities of a Pod right: to nodes, to other Pods, away from them.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/ and the API's own messages
"""

from __future__ import annotations

from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import FieldError, Path, dns_label, forbidden, invalid, required
from podwire.apiserver.validation_values import qualified_errors, selector_errors

_REQUIRED, _PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"


def affinity_errors(affinity: Tree, path: Path) -> list[FieldError]:
    """Give the errors of a Pod's ``affinity``."""
    errors = _node(affinity.get("nodeAffinity", {}), path / "nodeAffinity")
    for key in ("podAffinity", "podAntiAffinity"):
        part, where = affinity.get(key, {}), path / key
        for index, term in enumerate(part.get(_REQUIRED, ())):
            errors += _pod_term(term, where / _REQUIRED @ index)
        for index, one in enumerate(part.get(_PREFERRED, ())):
            errors += _weight(one, where / _PREFERRED @ index)
            errors += _pod_term(one.get("podAffinityTerm", {}), where / _PREFERRED @ index / "podAffinityTerm")
    return errors


def _weight(one: Tree, path: Path) -> list[FieldError]:
    weight = one.get("weight", 0)
    return [] if 1 <= weight <= 100 else [invalid(path / "weight", weight, "must be in the range 1-100")]


def _node(affinity: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if _REQUIRED in affinity:
        terms, where = affinity[_REQUIRED].get("nodeSelectorTerms", ()), path / _REQUIRED / "nodeSelectorTerms"
        errors += [] if terms else [required(where, "must have at least one node selector term")]
        for index, term in enumerate(terms):
            errors += _node_term(term, where @ index)
    for index, one in enumerate(affinity.get(_PREFERRED, ())):
        errors += _weight(one, path / _PREFERRED @ index)
        errors += _node_term(one.get("preference", {}), path / _PREFERRED @ index / "preference")
    return errors


def _node_term(term: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, one in enumerate(term.get("matchExpressions", ())):
        errors += _node_requirement(one, path / "matchExpressions" @ index)
    for index, one in enumerate(term.get("matchFields", ())):
        where, key = path / "matchFields" @ index, one.get("key", "")
        if one.get("operator") not in ("In", "NotIn"):
            errors.append(invalid(where / "operator", one.get("operator", ""), "not a valid selector operator"))
        elif len(one.get("values", ())) != 1:
            errors.append(required(where / "values", "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"))
        errors += [] if key == "metadata.name" else [invalid(where / "key", key, "not a valid field selector key")]
    return errors


def _node_requirement(one: Tree, path: Path) -> list[FieldError]:
    operator, values = one.get("operator", ""), one.get("values", [])
    errors: list[FieldError] = []
    if operator in ("In", "NotIn"):
        errors += [] if values else [required(path / "values", "must be specified when `operator` is 'In' or 'NotIn'")]
    elif operator in ("Exists", "DoesNotExist"):
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        errors += [forbidden(path / "values", text)] if values else []
    elif operator in ("Gt", "Lt"):
        text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
        errors += [] if len(values) == 1 else [required(path / "values", text)]
    else:
        errors.append(invalid(path / "operator", operator, "not a valid selector operator"))
    return errors + qualified_errors(one.get("key", ""), path / "key")


def _pod_term(term: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("labelSelector", "namespaceSelector"):
        errors += selector_errors(term.get(key, {}), path / key)
    for name in term.get("namespaces", ()):
        errors += [invalid(path / "namespace", name, text) for text in dns_label(name)]
    key = term.get("topologyKey", "")
    return errors + (qualified_errors(key, path / "topologyKey") if key else [required(path / "topologyKey", "can not be empty")])
