"""What a container says about its end: the text that its last state shows.

It writes the text to a file of its own, ``terminationMessagePath``; with the policy FallbackToLogsOnError a container that failed without
a word there is quoted from the end of its log.

Source: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import os

from podwire.objects.core import Container

MAXIMUM = 4096
"""Bytes of a message."""
LOG_BYTES, LOG_LINES = 2048, 80


def message(container: Container, exit_code: int, file: str, log: str) -> str:
    """The message of a container that has ended. ``file``, ``log``: where its message and its log lie; they need not be there."""
    said = _tail(file, MAXIMUM) if container.termination_message_path else b""
    if not said and exit_code and container.termination_message_policy == "FallbackToLogsOnError":
        said = b"".join(_tail(log, LOG_BYTES).splitlines(keepends=True)[-LOG_LINES:])
    return said.decode(errors="replace")


def _tail(path: str, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError:
        return b""
