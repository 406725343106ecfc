"""What can go wrong between a client and an API server.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

from typing import Any

import msgspec

from podwire.objects import codec


class ApiError(Exception):
    """The server's refusal. ``status`` is the HTTP status, ``reason`` one word (NotFound, Conflict, AlreadyExists, Invalid ...)."""

    def __init__(self, status: int, reason: str, message: str, body: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.body = body or {}

    def __str__(self) -> str:
        return f"{self.message} ({self.status} {self.reason})"

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Somebody else wrote first: read again, decide again."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def gone(self) -> bool:
        """The revision asked for is no longer kept: list again."""
        return self.status == 410 or self.reason == "Expired"


class Unreachable(ConnectionError):
    """No answer: the connection was refused, lost, or timed out. The text names the server."""


REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Gone",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


def from_answer(status: int, body: bytes) -> ApiError:
    """Make the error from an HTTP status and the body, which should be a Status but may be anything."""
    try:
        answer = codec.decode_status(body)
        plain = msgspec.json.decode(body)
    except (codec.Undecodable, msgspec.DecodeError):
        text = body[:200].decode(errors="replace").strip()
        return ApiError(status, REASONS.get(status, "Unknown"), text or f"the server answered with status {status}")
    reason = answer.reason or REASONS.get(status, "Unknown")
    return ApiError(status, reason, answer.message or f"the server answered with status {status}", plain)


def from_status(body: bytes | msgspec.Raw) -> ApiError:
    """Make the error from the Status that ends a watch."""
    answer = codec.decode_status(body)
    return ApiError(answer.code or 500, answer.reason or "Unknown", answer.message or "the watch was ended", msgspec.json.decode(body))
