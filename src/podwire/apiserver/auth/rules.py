"""What policy rules allow, and whether some rules cover others.

Pure. A rule is a plain tree (``verbs``, ``apiGroups``, ``resources``, ``resourceNames``, ``nonResourceURLs``). ``Grants`` is many rules
made ready for questions: a question costs a few look-ups, however many rules there are. A rule of very many combinations is not spelled
out: a few kilobytes could name billions.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources and
.../#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from podwire.apiserver.auth.attributes import Attributes

Rule = Mapping[str, Any]
ALL = "*"
EVERYTHING: tuple[Rule, ...] = (
    {"apiGroups": [ALL], "resources": [ALL], "verbs": [ALL]},
    {"nonResourceURLs": [ALL], "verbs": [ALL]},
)
_NO_RULE: frozenset[str] = frozenset()
_SPELLED_OUT = 4096  # combinations of a rule that are written down one by one
MOST_CONFIRMED = 50_000  # combinations of rules that somebody may be asked whether he has them all


class Grants:
    """Rules by what they are about. Built once, asked often."""

    __slots__ = ("_everywhere", "_large", "_patterns", "_resources")

    def __init__(self, rules: Iterable[Rule]) -> None:
        # verb, group, resource -> the names that may be meant, None: any
        self._resources: dict[tuple[str, str, str], frozenset[str] | None] = {}
        self._large: list[tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[str]]] = []  # verbs, groups, resources, names
        self._patterns: list[tuple[frozenset[str], frozenset[str]]] = []  # verbs, paths
        for rule in rules:
            self._add(rule)
        self._everywhere = any(ALL in (verb, group) or resource.startswith(ALL) for verb, group, resource in self._resources)

    def _add(self, rule: Rule) -> None:
        verbs = rule.get("verbs") or ()
        if rule.get("nonResourceURLs"):
            self._patterns.append((frozenset(verbs), frozenset(rule["nonResourceURLs"])))
        names = frozenset(rule.get("resourceNames") or ()) or None
        groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
        if len(verbs) * len(groups) * len(resources) > _SPELLED_OUT:
            self._large.append((frozenset(verbs), frozenset(groups), frozenset(resources), names or _NO_RULE))
            return
        for key in product(verbs, groups, resources):
            known = self._resources.get(key, _NO_RULE)
            self._resources[key] = None if names is None or known is None else known | names

    def allows(self, asked: Attributes) -> bool:
        """Say whether some rule allows what is asked."""
        if asked.path:
            return self._allows_path(asked.verb, asked.path)
        verb, group, resource, name = asked.verb, asked.group, asked.resource, asked.name
        names = self._resources.get((verb, group, resource), _NO_RULE)
        if names is None or name in names:
            return True
        if self._large and self._allowed_by_large(asked):
            return True
        if not self._everywhere:
            return False
        _, slash, part = resource.partition("/")
        resources = (resource, ALL, f"*/{part}") if slash else (resource, ALL)
        for key in product((verb, ALL), (group, ALL), resources):
            names = self._resources.get(key, _NO_RULE)
            if names is None or name in names:
                return True
        return False

    def _allowed_by_large(self, asked: Attributes) -> bool:
        _, slash, part = asked.resource.partition("/")
        resources = {asked.resource, ALL} | ({f"*/{part}"} if slash else set())
        return any(
            not verbs.isdisjoint((asked.verb, ALL))
            and not groups.isdisjoint((asked.group, ALL))
            and not named.isdisjoint(resources)
            and (not names or asked.name in names)
            for verbs, groups, named, names in self._large
        )

    def _allows_path(self, verb: str, path: str) -> bool:
        return any((ALL in verbs or verb in verbs) and any(_fits(path, one) for one in paths) for verbs, paths in self._patterns)


def _fits(path: str, pattern: str) -> bool:
    return path == pattern or (pattern.endswith(ALL) and path.startswith(pattern.rstrip(ALL)))


def combinations(rules: Iterable[Rule]) -> int:
    """Count the rules that ``single`` gives."""
    found = 0
    for rule in rules:
        verbs, names = len(rule.get("verbs") or ()), len(rule.get("resourceNames") or ()) or 1
        found += verbs * len(rule.get("nonResourceURLs") or ())
        found += verbs * len(rule.get("apiGroups") or ()) * len(rule.get("resources") or ()) * names
    return found


def single(rules: Iterable[Rule]) -> Iterable[Rule]:
    """Break rules down to rules of one verb and one thing each."""
    for rule in rules:
        verbs = rule.get("verbs") or ()
        for path, verb in product(rule.get("nonResourceURLs") or (), verbs):
            yield {"nonResourceURLs": [path], "verbs": [verb]}
        for group, resource, verb in product(rule.get("apiGroups") or (), rule.get("resources") or (), verbs):
            one = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
            names = rule.get("resourceNames") or ()
            yield from ({**one, "resourceNames": [name]} for name in names) if names else (one,)


def question(rule: Rule) -> Attributes:
    """Put a single rule as the question whether somebody may do all that it says: a wildcard asks for the same wildcard."""
    verb = rule["verbs"][0]
    if rule.get("nonResourceURLs"):
        return Attributes(verb, path=rule["nonResourceURLs"][0])
    return Attributes(verb, rule["apiGroups"][0], rule["resources"][0], name=(rule.get("resourceNames") or [""])[0])


def described(missing: Sequence[Rule]) -> str:
    """Print single rules as the API does in a refusal: those of one resource together, a line each."""
    together: dict[tuple[str, str], list[str]] = {}
    lines: set[str] = set()
    for rule in missing:
        if rule.get("resourceNames") or rule.get("nonResourceURLs"):
            lines.add(_line(rule))
            continue
        verbs = together.setdefault((rule["apiGroups"][0], rule["resources"][0]), [])
        if rule["verbs"][0] not in verbs:
            verbs.append(rule["verbs"][0])
    for (group, resource), verbs in together.items():
        lines.add(_line({"apiGroups": [group], "resources": [resource], "verbs": verbs}))
    return "\n".join(sorted(lines))


_SHOWN = (
    ("APIGroups", "apiGroups"),
    ("Resources", "resources"),
    ("NonResourceURLs", "nonResourceURLs"),
    ("ResourceNames", "resourceNames"),
    ("Verbs", "verbs"),
)


def _line(rule: Rule) -> str:
    return "{" + ", ".join(f"{shown}:{quoted(rule[field])}" for shown, field in _SHOWN if rule.get(field)) + "}"


def quoted(words: Iterable[str]) -> str:
    """Print texts as Go's ``%q`` prints a list of them."""
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"
