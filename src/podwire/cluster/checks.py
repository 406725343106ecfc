"""Checks of who reaches whom, as a file lists them: reading it, what is to be tried, and what came of it. Pure.

The file is a list as netassert (v2) has it, so that files written for that run here; beside Pods, a source may be a place of the lab, a
destination a Service. What must not be here: trying anything (``checking``, ``connecting``).

Source: https://github.com/controlplaneio/netassert
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from podwire.cluster.problem import Problem

CONNECTED: Final = "connected"
OUTCOMES: Final = (CONNECTED, "refused", "no answer", "unreachable", "unknown name")
SOURCES: Final = ("pod", "deployment", "statefulset", "daemonset", "replicaset")
TARGETS: Final = (*SOURCES, "service")
_KEYS: Final = frozenset({"name", "type", "protocol", "targetPort", "timeoutSeconds", "attempts", "exitCode", "expect", "src", "dst"})
_MOST_ATTEMPTS, _LONGEST_S = 100, 600


class BadChecks(Problem):
    """A file that is no list of checks; the text names file, line and field."""

    status = 2


@dataclass(frozen=True)
class End:
    """One end of a check: what is named (``kind`` of Kubernetes), or a place or host of that ``name``."""

    name: str
    kind: str = ""
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.kind else self.name


@dataclass(frozen=True)
class Check:
    """``expected``: an outcome, or "" for any but ``connected``. ``timeout_s`` is that of one attempt."""

    name: str
    source: End
    target: End
    port: int
    protocol: str = "tcp"
    timeout_s: float = 15.0
    attempts: int = 3
    expected: str = CONNECTED


@dataclass(frozen=True)
class Connection:
    """One that is to be tried: from a place of the lab to an address or name. ``said``: what people call the two ends."""

    where: str
    host: str
    said: str


def words(check: Check, connection: Connection, outcome: str) -> str:
    """Say what came of one connection."""
    return f"{connection.said} {connection.host}:{check.port} ({check.protocol}): {outcome}"


def holds(check: Check, outcome: str) -> bool:
    """Whether an outcome is the one that is expected."""
    return outcome == check.expected if check.expected else outcome != CONNECTED


def expectation(check: Check) -> str:
    return f"expected: {check.expected}" if check.expected else "expected: not connected"


# Reading --------------------------------------------------------------------------------------------------------------------


def read(items: Sequence[tuple[str, Any]]) -> list[Check]:
    """Read checks; each comes with where it stands (``file:line``). Raises BadChecks."""
    found: dict[str, str] = {}
    checks = []
    for where, tree in items:
        check = _check(_Fields(where, "", tree))
        if check.name in found:
            raise BadChecks(f"{where}: name: {check.name!r} is the name of the check at {found[check.name]}")
        found[check.name] = where
        checks.append(check)
    return checks


class _Fields:
    """The fields of a mapping, by name; what is wrong with one is said with its place."""

    def __init__(self, where: str, path: str, tree: Any) -> None:
        self._where, self._path = where, path
        if not isinstance(tree, Mapping):
            raise BadChecks(f"{where}: {path.removesuffix('.') or 'a check'}: expected a mapping, got {tree!r}")
        self._tree = tree

    def bad(self, key: str, text: str) -> BadChecks:
        return BadChecks(f"{self._where}: {self._path}{key}: {text}")

    def known(self, keys: frozenset[str]) -> None:
        for key in self._tree:
            if key not in keys:
                raise self.bad(str(key), f"unknown field; there are {', '.join(sorted(keys))}")

    def has(self, key: str) -> bool:
        return key in self._tree

    def text(self, key: str, default: str | None = None) -> str:
        value = self._tree.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.bad(key, f"expected a text, got {value!r}")
        return value

    def word(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        value = self.text(key, default).lower()
        if value not in allowed:
            raise self.bad(key, f"expected one of {', '.join(allowed)}, got {value!r}")
        return value

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self._tree.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(key, f"expected a number from {low} to {high}, got {value!r}")
        return value

    def below(self, key: str) -> _Fields:
        return _Fields(self._where, f"{self._path}{key}.", self._tree.get(key))


def _check(fields: _Fields) -> Check:
    fields.known(_KEYS)
    fields.word("type", ("k8s",), "k8s")
    by_status = "" if fields.number("exitCode", 0, 1, 0) else CONNECTED
    expected = fields.word("expect", OUTCOMES) if fields.has("expect") else by_status
    return Check(
        name=fields.text("name"),
        source=_source(fields.below("src")),
        target=_target(fields.below("dst")),
        port=fields.number("targetPort", 1, 65535),
        protocol=fields.word("protocol", ("tcp", "udp"), "tcp"),
        timeout_s=float(fields.number("timeoutSeconds", 1, _LONGEST_S, 15)),
        attempts=fields.number("attempts", 1, _MOST_ATTEMPTS, 3),
        expected=expected,
    )


def _source(fields: _Fields) -> End:
    fields.known(frozenset({"k8sResource", "place"}))
    if fields.has("place"):
        return End(fields.text("place"))
    return _resource(fields.below("k8sResource"), SOURCES)


def _target(fields: _Fields) -> End:
    fields.known(frozenset({"k8sResource", "host"}))
    if fields.has("host"):
        host = fields.below("host")
        host.known(frozenset({"name"}))
        return End(host.text("name"))
    return _resource(fields.below("k8sResource"), TARGETS)


def _resource(fields: _Fields, kinds: Sequence[str]) -> End:
    fields.known(frozenset({"kind", "name", "namespace", "clone"}))
    return End(fields.text("name"), fields.word("kind", kinds), fields.text("namespace", "default"))
