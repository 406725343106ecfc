"""The record of who did what: one line of JSON (audit.k8s.io/v1 Event) for each request that was answered, in a file of one's own.

Off unless it is asked for. ``Metadata`` says who, what and how it ended; ``Request`` also what was sent, ``RequestResponse`` also what was
answered. Bodies that hold secrets (Secrets, ConfigMaps, tokens) are never written. The file is private and is turned over when it is large.

Source: https://kubernetes.io/docs/tasks/debug/debug-cluster/audit/
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any, TextIO

import orjson

from podwire.apiserver.answers import Answer, Stream
from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.auth.authorizer import Authorizer, attributes
from podwire.apiserver.authentication import User
from podwire.apiserver.requests import Request
from podwire.apiserver.status import Failure

Tree = dict[str, Any]
LEVELS = ("Metadata", "Request", "RequestResponse")
LARGEST = 100 * 1024 * 1024  # bytes of one file
KEPT = 10  # files beside it
_SECRETIVE = frozenset({"secrets", "configmaps", "tokenreviews", "serviceaccounts/token"})


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Trail:
    """What is noted of a request while it is served. ``user`` None: nobody was known."""

    scope: Tree
    received: datetime
    identity: str = field(default_factory=lambda: str(uuid.uuid4()))
    user: User | None = None
    taken_for: User | None = None
    request: Request | None = None


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> TextIO:  # type: ignore[override]
        descriptor = os.open(self.baseFilename, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


class Audit:
    """Writes the record. ``level`` is one of ``LEVELS``. Raises OSError when the file cannot be opened."""

    def __init__(
        self, authorizer: Authorizer, path: str, level: str, *, largest: int = LARGEST, now: Callable[[], datetime] = _now
    ) -> None:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        self._authorizer = authorizer
        self._level = level
        self._now = now
        self._file = _PrivateFile(path, maxBytes=largest, backupCount=KEPT)
        self._file.setFormatter(logging.Formatter("%(message)s"))

    def begin(self, scope: Tree) -> Trail:
        """A request has come."""
        return Trail(scope, self._now())

    def end(self, trail: Trail, found: Answer | Stream, stage: str = "ResponseComplete") -> None:
        """It was answered."""
        line = orjson.dumps(self._event(trail, found, stage)).decode()
        self._file.emit(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        self._file.close()

    def _event(self, trail: Trail, found: Answer | Stream, stage: str) -> Tree:
        scope = trail.scope
        query = scope["query_string"].decode("latin-1")
        headers = dict(scope["headers"])
        asked = _asked(trail)
        event: Tree = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": self._level,
            "auditID": trail.identity,
            "stage": stage,
            "requestURI": scope["path"] + (f"?{query}" if query else ""),
            "verb": asked.verb,
            "user": _described(trail.user),
            "sourceIPs": [scope["client"][0]] if scope.get("client") else [],
            "userAgent": headers.get(b"user-agent", b"").decode("latin-1"),
            "responseStatus": _status(found),
            "requestReceivedTimestamp": _stamp(trail.received),
            "stageTimestamp": _stamp(self._now()),
        }
        if trail.taken_for is not None:
            event["impersonatedUser"] = _described(trail.taken_for)
        if trail.request is not None:
            event["objectRef"] = _reference(trail.request)
        user = trail.taken_for or trail.user
        if user is not None:
            decision = self._authorizer.decide(user, asked)
            told = {"decision": "allow" if decision.allowed else "forbid", "reason": decision.reason}
            event["annotations"] = {f"authorization.k8s.io/{key}": value for key, value in told.items()}
        if trail.request is not None and trail.request.annotations:
            event.setdefault("annotations", {}).update(trail.request.annotations)
        self._add_bodies(event, trail, found, asked)
        return event

    def _add_bodies(self, event: Tree, trail: Trail, found: Answer | Stream, asked: Attributes) -> None:
        if trail.request is None or self._level == "Metadata":
            return
        if asked.resource in _SECRETIVE:
            event["level"] = "Metadata"
            return
        bodies = {"requestObject": trail.request.body}
        if self._level == "RequestResponse" and isinstance(found, Answer):
            bodies["responseObject"] = found.body
        for name, body in bodies.items():
            try:
                event[name] = orjson.loads(body)
            except orjson.JSONDecodeError:
                continue  # no body, or one that is not JSON


def _asked(trail: Trail) -> Attributes:
    request = trail.request
    if request is None:
        return Attributes(trail.scope["method"].lower(), path=trail.scope["path"])
    try:
        return attributes(request.verb, request.target, request.query.get("fieldSelector", ""))
    except Failure:  # it was refused for that
        return attributes(request.method.lower(), request.target)


def _described(user: User | None) -> Tree:
    if user is None:
        return {}
    described: Tree = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        described["uid"] = user.uid
    if user.extra:
        described["extra"] = {key: list(values) for key, values in user.extra}
    return described


def _reference(request: Request) -> Tree:
    target = request.target
    told = {
        "resource": target.plural,
        "namespace": target.namespace,
        "name": target.name,
        "apiGroup": target.group,
        "apiVersion": target.version,
        "subresource": target.subresource,
    }
    return {key: value for key, value in told.items() if value}


def _status(found: Answer | Stream) -> Tree:
    told: Tree = {"metadata": {}, "code": found.code}
    if isinstance(found, Answer) and found.code >= 400:
        tree = orjson.loads(found.body)
        told |= {key: tree[key] for key in ("status", "reason", "message") if key in tree}
    return told


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"
