"""What a CNI plugin says when it cannot: the error object, with the specification's codes and our own.

Source: https://www.cni.dev/docs/spec/#error
"""

from __future__ import annotations

from typing import Any, Final

INCOMPATIBLE_VERSION: Final = 1
UNSUPPORTED_FIELD: Final = 2
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
IO_FAILURE: Final = 5
DECODING_FAILURE: Final = 6
INVALID_CONFIGURATION: Final = 7
TRY_AGAIN_LATER: Final = 11
UNAVAILABLE: Final = 50
"""STATUS: an ADD could not be served."""

# Codes from 100 on are a plugin's own.
KERNEL_REFUSED: Final = 100
BRIDGE_FULL: Final = 101
NOT_AS_MADE: Final = 102
ADDRESS_TAKEN: Final = 103
HOST_PORT_TAKEN: Final = 104
FAULT: Final = 199


class CniError(Exception):
    """One of the codes, words for people, and what stands behind them."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def tree(self, version: str) -> dict[str, Any]:
        """The error object."""
        tree: dict[str, Any] = {"cniVersion": version, "code": self.code, "msg": self.message}
        return tree | ({"details": self.details} if self.details else {})


class HostPortTaken(ValueError):
    """A host port leads to another container. The text names it."""
