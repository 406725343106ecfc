"""Failures as the API tells them: a ``Status`` object with a code, a reason and a message, in the words that clients know.

Here: each reason, its code, its text. Not here: when one is raised. A handler raises ``Failure``; the application turns it into the
answer, and turns anything else that is raised into ``internal``, so that no client ever sees a traceback.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from podwire.apiserver.validation import FieldError, summary

Tree = dict[str, Any]


class Named(Protocol):
    """What messages need of a kind."""

    @property
    def group(self) -> str: ...
    @property
    def plural(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def resource(self) -> str: ...


class Failure(Exception):
    """A request that is answered with a Status. ``headers`` go into the answer beside it."""

    def __init__(
        self, code: int, reason: str, message: str, details: Tree | None = None, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = tuple(headers)
        self.metadata: Tree = {}

    def tree(self) -> Tree:
        """Give the Status object."""
        status: Tree = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure", "message": self.message}
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        status["code"] = self.code
        return status


def success(kind: Named | None = None, name: str = "", uid: str = "", code: int = 0) -> Tree:
    """Give the Status of something done."""
    status: Tree = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    if kind is not None:
        details = {"name": name, "group": kind.group, "kind": kind.plural, "uid": uid}
        status["details"] = {key: value for key, value in details.items() if value}
    if code:
        status["code"] = code
    return status


def _details(kind: Named, name: str, **more: Any) -> Tree:
    details = {"name": name, "group": kind.group, "kind": kind.plural, **more}
    return {key: value for key, value in details.items() if value}


def bad_request(message: str) -> Failure:
    return Failure(400, "BadRequest", message)


def unauthorized() -> Failure:
    return Failure(401, "Unauthorized", "Unauthorized")


def forbidden_text(message: str, details: Tree | None = None) -> Failure:
    return Failure(403, "Forbidden", message, details)


def forbidden(kind: Named, name: str, message: str, causes: Sequence[Tree] = ()) -> Failure:
    what = f'{kind.resource} "{name}"' if name else kind.resource
    return Failure(403, "Forbidden", f"{what} is forbidden: {message}", _details(kind, name, causes=list(causes)))


def no_such_path() -> Failure:
    return Failure(404, "NotFound", "the server could not find the requested resource", {})


def not_found(kind: Named, name: str) -> Failure:
    return Failure(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def method_not_allowed() -> Failure:
    return Failure(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def not_acceptable(types: str) -> Failure:
    return Failure(406, "NotAcceptable", f"only the following media types are accepted: {types}")


def already_exists(kind: Named, name: str) -> Failure:
    return Failure(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def in_use(kind: Named, name: str, user: Named, by: str) -> Failure:
    """Give the cloud's answer to who would delete what another resource uses."""
    message = f"The {kind.kind.lower()} resource '{_collection(kind)}/{name}' is already being used by '{_collection(user)}/{by}'"
    return Failure(400, "resourceInUseByAnotherResource", message, _details(kind, name))


def _collection(kind: Named) -> str:
    """The collection of a kind in the cloud's words: ``forwardingRules``."""
    return kind.kind[0].lower() + kind.kind[1:] + kind.plural.removeprefix(kind.kind.lower())


def conflict(kind: Named, name: str, message: str) -> Failure:
    return Failure(409, "Conflict", f'Operation cannot be fulfilled on {kind.resource} "{name}": {message}', _details(kind, name))


def apply_conflict(message: str, found: Sequence[tuple[str, str]]) -> Failure:
    """Give the answer to a configuration that would change what others own: each owner, as printed, with the path of a field."""
    causes = [{"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": path} for owner, path in found]
    return Failure(409, "Conflict", message, {"causes": causes})


def modified(kind: Named, name: str) -> Failure:
    return conflict(kind, name, "the object has been modified; please apply your changes to the latest version and try again")


def expired(message: str, token: str = "") -> Failure:
    """Give the answer to a request for a state that is gone. ``token`` continues a list in the present state."""
    failure = Failure(410, "Expired", message)
    if token:
        failure.metadata = {"continue": token}
    return failure


def too_large(limit: int) -> Failure:
    return Failure(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}", headers=((b"connection", b"close"),))


def unsupported_media_type(sent: str, accepted: Sequence[str], why: str = "") -> Failure:
    listed = ", ".join(accepted)
    return Failure(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format - accepted media types include: {listed}"
        + (f" (it was {sent}{': ' + why if why else ''})" if sent else ""),
    )


def invalid(kind: Named, name: str, errors: Sequence[FieldError]) -> Failure:
    """Give the answer to an object with errors: all of them, at once."""
    causes = [{"reason": error.reason, "message": error.message, "field": error.field} for error in errors]
    message = f'{kind.kind}{"." + kind.group if kind.group else ""} "{name}" is invalid: {summary(errors)}'
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": causes}
    return Failure(422, "Invalid", message, {key: value for key, value in details.items() if value})


def invalid_options(name: str, error: FieldError) -> Failure:
    """Give the answer to a query that does not go together: ``PatchOptions.meta.k8s.io "" is invalid: ...``."""
    details = {
        "group": "meta.k8s.io",
        "kind": name,
        "causes": [{"reason": error.reason, "message": error.message, "field": error.field}],
    }
    return Failure(422, "Invalid", f'{name}.meta.k8s.io "" is invalid: {error}', details)


def too_many_requests() -> Failure:
    message = "too many requests, please try again later"
    return Failure(429, "TooManyRequests", message, {"retryAfterSeconds": 1}, ((b"retry-after", b"1"),))


def internal(message: str) -> Failure:
    return Failure(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def unavailable(message: str) -> Failure:
    return Failure(503, "ServiceUnavailable", message, {"retryAfterSeconds": 1}, ((b"retry-after", b"1"),))


def timeout() -> Failure:
    """Give the answer to a request that was not sent to its end in time; what may still come is not waited for."""
    return Failure(504, "Timeout", "Timeout: request did not complete within the allotted timeout", {}, ((b"connection", b"close"),))


def too_new(revision: int, current: int) -> Failure:
    """Give the answer to a request for a revision that has not been reached: the client may ask again."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: Too large resource version: {revision}, current: {current}"
    return Failure(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1}, ((b"retry-after", b"1"),))
