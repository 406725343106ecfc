"""What became of a command, as the Status that a client reads. Pure.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/ and the words of the kubelet.
"""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]

SUCCESS: Tree = {"metadata": {}, "status": "Success"}
NOT_FOUND, NOT_EXECUTABLE = 127, 126


def exited(status: int) -> Tree:
    """How a command ended. ``status``: its exit status, or minus the number of the signal that ended it."""
    if status == 0:
        return SUCCESS
    code = status if status > 0 else 128 - status
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(message: str) -> Tree:
    """Something went wrong that is not the command's."""
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }


def not_started(name: str, reason: str) -> str:
    """The runtime's words for a command that could not be executed."""
    return f'OCI runtime exec failed: exec failed: unable to start container process: exec: "{name}": {reason}: unknown'
