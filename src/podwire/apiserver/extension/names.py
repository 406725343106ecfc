"""Which names a definition gets: one that another kind of its group has already is not accepted.

Source: https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/custom-resource-definition-v1/#CustomResourceDefinitionStatus
"""

from __future__ import annotations

from collections.abc import Iterable

from podwire.apiserver.kind import Kind, Tree

ACCEPTED, ESTABLISHED, TERMINATING = "NamesAccepted", "Established", "Terminating"

Said = tuple[str, str, str, str]  # type, status, reason, message of a condition


def taken(group: str, own: Iterable[Kind], others: Iterable[Tree]) -> tuple[set[str], set[str]]:
    """Give the names that are in use in a group: those of resources, and those of kinds."""
    resources: set[str] = set()
    kinds: set[str] = set()
    for kind in own:
        if kind.group == group:
            resources |= {kind.plural, kind.singular, *kind.short_names}
            kinds |= {kind.kind, kind.list_kind}
    for other in others:
        names = other.get("status", {}).get("acceptedNames", {})
        if other["spec"]["group"] == group:
            resources |= {name for name in (names.get("plural"), names.get("singular"), *names.get("shortNames", ())) if name}
            kinds |= {name for name in (names.get("kind"), names.get("listKind")) if name}
    return resources, kinds


def judge(names: Tree, resources: set[str], kinds: set[str]) -> tuple[Tree, list[Said]]:
    """Give the names that a definition gets and what its conditions say."""
    accepted: Tree = {"kind": "", "plural": ""}
    problem: tuple[str, str] | None = None
    for key, used in (("plural", resources), ("singular", resources), ("shortNames", resources), ("kind", kinds), ("listKind", kinds)):
        wanted = names.get(key)
        clash = next((one for one in (wanted if isinstance(wanted, list) else [wanted]) if one in used), None)
        if clash is not None:
            problem = (f"{key[0].upper()}{key[1:]}Conflict", f'"{clash}" is already in use')
        elif wanted:
            accepted[key] = wanted
    if names.get("categories"):
        accepted["categories"] = names["categories"]
    if problem is not None:
        return accepted, [(ACCEPTED, "False", *problem), (ESTABLISHED, "False", "NotAccepted", "not all names are accepted")]
    return accepted, [
        (ACCEPTED, "True", "NoConflicts", "no conflicts found"),
        (ESTABLISHED, "True", "InitialNamesAccepted", "the initial names have been accepted"),
    ]


def is_established(definition: Tree) -> bool:
    """Whether a definition is served, as its conditions say."""
    conditions: list[Tree] = definition.get("status", {}).get("conditions", [])
    return any(one["type"] == ESTABLISHED and one["status"] == "True" for one in conditions)


def conditions(before: Iterable[Tree], said: Iterable[Said], now: str) -> list[Tree]:
    """Lay what is said over the conditions that there were. The time changes with the status."""
    found = {one["type"]: one for one in before}
    for kind, status, reason, message in said:
        old = found.get(kind)
        since = old["lastTransitionTime"] if old is not None and old["status"] == status else now
        found[kind] = {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}
    return list(found.values())
