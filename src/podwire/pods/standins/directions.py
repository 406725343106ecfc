"""Directions: what a Pod's annotations tell its stand-ins to do. Pure.

An annotation is ``standin.podwire.dev/NAME``, or ``standin.podwire.dev/NAME.WHERE`` for one container (its name) or one port (its number):

    status          the status of HTTP answers: 503
    delay           how long an HTTP answer waits: 200ms
    hang            true: HTTP requests are never answered
    body            the body of HTTP answers, as it is written
    headers         more header fields of HTTP answers, one a line: X-Stage: canary
    refuse, off     ports where nothing listens: 8080, or 8080 9090, or true for all (TCP: a reset; UDP: ICMP port unreachable)
    drop            ports whose packets are thrown away, so that clients time out
    reset           ports that take a connection and reset it
    fail-readiness  true: the container is not ready
    fail-liveness   true: its liveness probe fails, as often as it is sent
    fail-startup    true: its startup probe fails
    exit-code       the exit status of a stand-in that ends
    run-for         it ends after this time, whatever the Pod's restartPolicy: 30s; without it, one that has nothing to serve ends at once

``status``, ``delay`` and ``hang`` may have one line for each path: ``/api 503``; ``/api/*`` is all that begins so, a line without a path is
the rest. The nearest wins: the port's, then the container's, then the Pod's; of those the path itself, then the longest beginning.

A value that is none of this is a ``Fault``, and what was said before by that name holds on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from podwire.pods.standins.durations import parse_duration

PREFIX = "standin.podwire.dev/"
_LONGEST_S = 3600.0
_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.1
_NOT_IN_FIELD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# What the framing of an answer says is the server's alone.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive"})


@dataclass(frozen=True)
class Fault:
    """An annotation that is not obeyed: its whole name, its value, and what was expected."""

    annotation: str
    value: str
    expected: str

    def __str__(self) -> str:
        shown = self.value if len(self.value) <= 100 else self.value[:100] + "..."
        return f'annotation {self.annotation}: "{shown}": expected {self.expected}; what held before still holds'


class _Wrong(ValueError):
    """The text says what was expected."""


# The values ----------------------------------------------------------------------------------------------------------------


def _status(text: str) -> int:
    if not re.fullmatch(r"[2-5]\d\d", text):
        raise _Wrong("an HTTP status from 200 to 599, or lines of a path and a status such as /api 503")
    return int(text)


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= _LONGEST_S:
        raise _Wrong("a duration up to 1h such as 200ms or 1.5s")
    return seconds


def _truth(text: str) -> bool:
    if text not in {"true", "false"}:
        raise _Wrong("true or false")
    return text == "true"


def _exit_code(text: str) -> int:
    if not text.isdecimal() or not text.isascii() or int(text) > 255:
        raise _Wrong("an exit status from 0 to 255")
    return int(text)


def _ports(text: str) -> frozenset[int] | None:
    """The numbers; None for every port."""
    if text in {"true", "false"}:
        return None if text == "true" else frozenset()
    words = re.split(r"[\s,]+", text)
    if not all(word.isascii() and word.isdecimal() and 0 < int(word) < 65536 for word in words):
        raise _Wrong("port numbers such as 8080 or 8080 9090, or true for all")
    return frozenset(int(word) for word in words)


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    found = []
    for line in text.splitlines():
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        if not colon or not _FIELD_NAME.fullmatch(name) or _NOT_IN_FIELD.search(value):
            raise _Wrong("lines such as X-Stage: canary")
        if name.lower() in _FRAMING:
            raise _Wrong(f"header fields other than {name}, which the answer's framing needs")
        found.append((name, value))
    return tuple(found)


@dataclass(frozen=True)
class ByPath:
    """A value for each path; ``""`` is the one for the rest, ``/api/*`` for all that begin with ``/api/``."""

    values: Mapping[str, object]

    def of(self, path: str) -> object | None:
        if path in self.values:
            return self.values[path]
        beginnings = (rule for rule in self.values if rule.endswith("*") and path.startswith(rule[:-1]))
        return self.values.get(max(beginnings, key=len, default=""))


def _by_path(one: Callable[[str], object]) -> Callable[[str], ByPath]:
    def parse(text: str) -> ByPath:
        found: dict[str, object] = {}
        for line in re.split(r"[\n,]", text):
            words = line.split()
            if not words:
                continue
            path = words.pop(0) if words[0].startswith("/") else ""
            if len(words) > 1 or path in found:
                raise _Wrong("one value, or one a line for each path such as /api VALUE")
            # A path alone after a truth is a truth: `hang: /slow`.
            found[path] = True if not words and one is _truth else one(" ".join(words))
        if not found:
            one("")  # says what was expected
        return ByPath(found)

    return parse


def _body(text: str) -> str:
    return text


@dataclass(frozen=True)
class _Name:
    """``where``: which scopes a direction may have besides the whole Pod: c a container, p a port."""

    parse: Callable[[str], object]
    where: str = "cp"


NAMES: Mapping[str, _Name] = {
    "status": _Name(_by_path(_status)),
    "delay": _Name(_by_path(_duration)),
    "hang": _Name(_by_path(_truth)),
    "body": _Name(_body),
    "headers": _Name(_headers),
    "refuse": _Name(_ports, ""),
    "off": _Name(_ports, ""),
    "drop": _Name(_ports, ""),
    "reset": _Name(_ports, ""),
    "fail-readiness": _Name(_truth, "c"),
    "fail-liveness": _Name(_truth, "c"),
    "fail-startup": _Name(_truth, "c"),
    "exit-code": _Name(_exit_code, "c"),
    "run-for": _Name(_duration, "c"),
}


def accepted(annotations: Mapping[str, str], containers: Iterable[str], former: Mapping[str, str]) -> tuple[dict[str, str], list[Fault]]:
    """The directions among the annotations that can be obeyed, by name without the prefix, and what is wrong with the others.

    ``containers``: the names that the Pod has. ``former``: what this gave before; an annotation that is wrong now keeps that.
    """
    known = set(containers)
    told: dict[str, str] = {}
    faults: list[Fault] = []
    for annotation, value in annotations.items():
        if not annotation.startswith(PREFIX):
            continue
        name = annotation.removeprefix(PREFIX)
        try:
            _check(name, value.strip(), known)
        except _Wrong as wrong:
            faults.append(Fault(annotation, value, str(wrong)))
            if name in former:
                told[name] = former[name]
        else:
            told[name] = value
    return told, faults


def _check(name: str, value: str, containers: set[str]) -> None:
    word, dot, where = name.partition(".")
    if word not in NAMES:
        raise _Wrong(f"one of {', '.join(PREFIX + known for known in NAMES)}")
    if dot:
        allowed = NAMES[word].where
        port = "p" in allowed and where.isascii() and where.isdecimal() and 0 < int(where) < 65536
        if not port and not ("c" in allowed and where in containers):
            places = [*(["the name of a container of the Pod"] if "c" in allowed else []), *(["a port number"] if "p" in allowed else [])]
            raise _Wrong(f"{' or '.join(places)} behind {PREFIX}{word}." if places else f"{PREFIX}{word} without {dot}{where}")
    NAMES[word].parse(value)


# What they come to -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manner:
    """How one HTTP request is answered, where that is told: None leaves it to the stand-in."""

    status: int | None = None
    delay_s: float = 0.0
    hang: bool = False
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()


PLAIN = Manner()


@dataclass(frozen=True)
class Directions:
    """``told`` is what ``accepted`` gave; ``values`` the same, parsed."""

    told: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, told: Mapping[str, str]) -> Directions:
        values = {}
        for name, value in told.items():
            text = value if name.partition(".")[0] == "body" else value.strip()
            values[name] = NAMES[name.partition(".")[0]].parse(text)
        return cls(told, values)

    def _nearest(self, name: str, container: str, port: int = 0) -> Iterator[object]:
        for key in (f"{name}.{port}", f"{name}.{container}", name):
            if key in self.values:
                yield self.values[key]

    def manner(self, container: str, port: int, path: str) -> Manner:
        """For a request to that path (without its query) at that port of that container."""
        if not self.values:
            return PLAIN
        found: dict[str, object] = {}
        for name in ("status", "delay", "hang"):
            for rule in self._nearest(name, container, port):
                value = rule.of(path) if isinstance(rule, ByPath) else None
                if value is not None:
                    found[name] = value
                    break
        body = next(self._nearest("body", container, port), None)
        headers = next(self._nearest("headers", container, port), ())
        return Manner(
            status=found.get("status"),  # type: ignore[arg-type]
            delay_s=float(found.get("delay", 0.0)),  # type: ignore[arg-type]
            hang=bool(found.get("hang", False)),
            body=None if body is None else str(body).encode(),
            headers=headers,  # type: ignore[arg-type]
        )

    def at(self, name: str, port: int) -> bool:
        """Say whether ``refuse``, ``off``, ``drop`` or ``reset`` names that port."""
        ports = self.values.get(name, frozenset())
        return ports is None or port in ports  # type: ignore[operator]

    def fails(self, probe: str, container: str) -> bool:
        """Say whether the probe of that word (readiness, liveness, startup) of the container fails."""
        return bool(next(self._nearest(f"fail-{probe}", container), False))

    def exit_code(self, container: str) -> int:
        return int(next(self._nearest("exit-code", container), 0))  # type: ignore[call-overload, no-any-return]

    def run_for(self, container: str) -> float | None:
        """The seconds after which the container ends; None if nobody says."""
        found = next(self._nearest("run-for", container), None)
        return None if found is None else float(found)  # type: ignore[arg-type]
