"""Roles and bindings, indexed by whom they are bound to.

Pure: it is told of objects and asked questions. An answer costs a few look-ups for each group of the user: bindings are found by subject
and namespace, the rules of all roles that are bound to a subject in a namespace are one ``Grants``, made when it is first asked for and
dropped when one of these bindings or roles changes. Nothing grows with the number of bindings of others.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from podwire.apiserver.auth.attributes import Attributes, Decision
from podwire.apiserver.auth.rules import Grants, Rule, described, question, quoted, single

Tree = Mapping[str, Any]
Name = tuple[str, str]  # namespace ("": the cluster's) and name
ACCOUNT_PREFIX = "system:serviceaccount:"
_GROUP = "rbac.authorization.k8s.io"


def account_groups(namespace: str) -> tuple[str, ...]:
    """Give the groups of each ServiceAccount of a namespace."""
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")


class _Bound(NamedTuple):
    """A binding: the role, and each subject as it is found and as it is printed."""

    role: Name
    subjects: tuple[tuple[str, str], ...]


class _Entry:
    """What is bound to one subject in one namespace. ``grants`` None: not made yet."""

    __slots__ = ("bindings", "grants")

    def __init__(self) -> None:
        self.bindings: dict[Name, None] = {}
        self.grants: Grants | None = None


class Policy:
    """All roles and bindings. Subjects are found by one text: ``User:NAME`` or ``Group:NAME``."""

    def __init__(self) -> None:
        self._roles: dict[Name, Sequence[Rule]] = {}
        self._bindings: dict[Name, _Bound] = {}
        self._subjects: dict[str, dict[str, _Entry]] = {}
        self._bound_to: dict[Name, dict[Name, None]] = {}  # role -> bindings

    # What there is ---------------------------------------------------------------------------------------------------------

    def put_role(self, role: Name, rules: Sequence[Rule]) -> None:
        self._roles[role] = rules
        self._stale(role)

    def delete_role(self, role: Name) -> None:
        self._roles.pop(role, None)
        self._stale(role)

    def put_binding(self, binding: Name, tree: Tree) -> None:
        """Learn a RoleBinding or, with namespace ``""``, a ClusterRoleBinding."""
        self.delete_binding(binding)
        reference = tree.get("roleRef") or {}
        namespace = binding[0] if reference.get("kind") == "Role" else ""
        subjects = tuple(_subject(one, binding[0]) for one in tree.get("subjects") or ())
        bound = self._bindings[binding] = _Bound((namespace, reference.get("name", "")), subjects)
        self._bound_to.setdefault(bound.role, {})[binding] = None
        for subject, _ in subjects:
            entry = self._subjects.setdefault(subject, {}).setdefault(binding[0], _Entry())
            entry.bindings[binding] = None
            entry.grants = None

    def delete_binding(self, binding: Name) -> None:
        bound = self._bindings.pop(binding, None)
        if bound is None:
            return
        of_role = self._bound_to[bound.role]
        del of_role[binding]
        if not of_role:
            del self._bound_to[bound.role]
        for subject in {subject for subject, _ in bound.subjects}:
            namespaces = self._subjects[subject]
            entry = namespaces[binding[0]]
            del entry.bindings[binding]
            entry.grants = None
            if not entry.bindings:
                del namespaces[binding[0]]
            if not namespaces:
                del self._subjects[subject]

    def _stale(self, role: Name) -> None:
        for binding in self._bound_to.get(role, ()):
            for subject, _ in self._bindings[binding].subjects:
                self._subjects[subject][binding[0]].grants = None

    # What is asked ---------------------------------------------------------------------------------------------------------

    def allows(self, user: str, groups: Iterable[str], asked: Attributes) -> bool:
        """Say whether a rule that is bound to the user or to a group of the user's allows what is asked."""
        namespace = asked.namespace
        for entries in self._entries(user, groups):
            entry = entries.get("")
            if entry is not None and (entry.grants or self._made(entry)).allows(asked):
                return True
            if namespace:
                entry = entries.get(namespace)
                if entry is not None and (entry.grants or self._made(entry)).allows(asked):
                    return True
        return False

    def decide(self, user: str, groups: Iterable[str], asked: Attributes) -> Decision:
        """Say the same with the reason: which binding allows it, or which roles are missing. Looks at each binding of the user."""
        missing: list[str] = []
        for binding, subject in self._bindings_of(user, groups, asked.namespace):
            bound = self._bindings[binding]
            rules = self._roles.get(bound.role)
            kind = "Role" if bound.role[0] else "ClusterRole"
            if rules is None:
                missing.append(f'{kind.lower()}.{_GROUP} "{bound.role[1]}" not found')
            elif Grants(rules).allows(asked):
                which = f'RoleBinding "{binding[1]}/{binding[0]}"' if binding[0] else f'ClusterRoleBinding "{binding[1]}"'
                return Decision(True, f'RBAC: allowed by {which} of {kind} "{bound.role[1]}" to {subject}')
        if not missing:
            return Decision(False)
        return Decision(False, f"RBAC: {missing[0] if len(missing) == 1 else '[' + ', '.join(dict.fromkeys(missing)) + ']'}")

    def rules(self, user: str, groups: Iterable[str], namespace: str) -> list[Rule]:
        """Give all rules that hold for a user in a namespace, the cluster's included."""
        found = (self._roles.get(self._bindings[binding].role, ()) for binding, _ in self._bindings_of(user, groups, namespace))
        return [rule for rules in found for rule in rules]

    def role(self, role: Name) -> Sequence[Rule] | None:
        """Give the rules of a role; None when there is none."""
        return self._roles.get(role)

    def escalation(self, user: str, groups: Sequence[str], namespace: str, rules: Iterable[Rule]) -> str:
        """Say what rules would grant that a user does not have; nothing (``""``) when there is nothing of it."""
        missing = [one for one in single(rules) if not self.allows(user, groups, question(one)._replace(namespace=namespace))]
        if not missing:
            return ""
        who = f"user {json.dumps(user, ensure_ascii=False)} (groups={quoted(groups)})"
        return f"{who} is attempting to grant RBAC permissions not currently held:\n{described(missing)}"

    def _entries(self, user: str, groups: Iterable[str]) -> Iterator[dict[str, _Entry]]:
        subjects = self._subjects
        entries = subjects.get(f"User:{user}")
        if entries is not None:
            yield entries
        for group in groups:
            entries = subjects.get(f"Group:{group}")
            if entries is not None:
                yield entries

    def _bindings_of(self, user: str, groups: Iterable[str], namespace: str) -> list[tuple[Name, str]]:
        """The bindings of a user, the cluster's first, each once with the subject as printed."""
        wanted = (f"User:{user}", *(f"Group:{group}" for group in groups))
        found: dict[Name, str] = {}
        for place in dict.fromkeys(("", namespace)):
            for subject in wanted:
                entry = self._subjects.get(subject, {}).get(place)
                for binding in entry.bindings if entry is not None else ():
                    found.setdefault(binding, next(shown for one, shown in self._bindings[binding].subjects if one == subject))
        return list(found.items())

    def _made(self, entry: _Entry) -> Grants:
        roles = dict.fromkeys(self._bindings[binding].role for binding in entry.bindings)
        entry.grants = Grants(rule for role in roles for rule in self._roles.get(role, ()))
        return entry.grants


def _subject(tree: Tree, namespace: str) -> tuple[str, str]:
    """Give a subject as it is found and as it is printed. A ServiceAccount without a namespace is of the binding's."""
    kind, name = tree.get("kind", ""), tree.get("name", "")
    if kind == "ServiceAccount":
        of = tree.get("namespace") or namespace
        return f"User:{ACCOUNT_PREFIX}{of}:{name}", f'ServiceAccount "{name}/{of}"'
    return f"{kind}:{name}", f'{kind} "{name}"'
