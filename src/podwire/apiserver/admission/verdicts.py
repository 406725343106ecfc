"""What ValidatingAdmissionPolicies say of a request, and what becomes of it: warnings, notes for the audit log, a refusal. Pure.

A request is put to all policies before it is refused, in the words of the first that denies it, so that the audit log has what each said. A
binding says what is done with what fails: ``Deny``, ``Warn``, ``Audit``.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-actions
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from podwire.apiserver import status
from podwire.apiserver.admission.attributes import Attributes

Tree = dict[str, Any]
FAILURES = "validation.policy.admission.k8s.io/validation_failure"
"""Under what the audit log has failures."""

_MOST_FAILURES = 50
_LONGEST_NOTE = 10 * 1024  # bytes
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
_ESCAPED = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}  # as upstream writes JSON into a text


class Failed(NamedTuple):
    """A validation that does not hold. ``place`` is which of its policy's it is."""

    message: str
    reason: str = "Invalid"
    place: int = 0


class Note(NamedTuple):
    """A value for the audit log, or what is wrong with it; without either there is nothing to be noted."""

    key: str
    value: str = ""
    wrong: str = ""


class Verdict:
    """What has been said so far."""

    def __init__(self) -> None:
        self._warnings: list[str] = []
        self._failures: list[Tree] = []
        self._notes: dict[str, dict[str, None]] = {}
        self._denials: list[tuple[str, Failed]] = []

    def fail(self, policy: str, binding: str, actions: Sequence[str], failed: Failed) -> None:
        """A validation does not hold."""
        if "Warn" in actions:
            self._warnings.append(f"Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {failed.message}")
        if "Audit" in actions:
            told = {"message": failed.message, "policy": policy, "binding": binding}
            self._failures.append({**told, "expressionIndex": failed.place, "validationActions": list(actions)})
        if "Deny" in actions:
            self.deny(policy, binding, failed)

    def deny(self, policy: str, binding: str, failed: Failed) -> None:
        """The request is to be refused, whatever the binding says."""
        told = f"ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {failed.message}"
        self._denials.append((told, failed))

    def note(self, policy: str, binding: str, note: Note) -> None:
        """The audit log is to have a value: of several bindings, each once. One that cannot be worked out refuses the request."""
        if note.wrong:
            self.deny(policy, binding, Failed(note.wrong))
            return
        value = note.value.encode()[:_LONGEST_NOTE].decode(errors="ignore")
        if value:
            self._notes.setdefault(f"{policy}/{note.key}", {})[value] = None

    def pronounce(self, asked: Attributes) -> None:
        """Do with a request what was said of it. Raises Failure."""
        asked.warnings += self._warnings
        asked.annotations.update({key: ", ".join(values) for key, values in self._notes.items()})
        if self._failures:
            asked.annotations[FAILURES] = orjson.dumps(self._failures[:_MOST_FAILURES]).decode().translate(_ESCAPED)
        if self._denials:
            message, failed = self._denials[0]
            failure = status.forbidden(asked.own, asked.name, message, [{"message": message}])
            raise status.Failure(_CODES.get(failed.reason, 422), failed.reason, failure.message, failure.details)
