"""What a container says about its end: the text that its last state shows.

It writes the text to a file of its own, ``terminationMessagePath``; with the policy FallbackToLogsOnError a container that failed without
a word there is quoted from the end of its log.

Source: https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
"""

from __future__ import annotations

import os

from podwire.objects.core import Container
from podwire.pods.logs.lines import decode

MAXIMUM = 4096
"""Bytes of a message."""
LOG_BYTES, LOG_LINES = 2048, 80
_LOG_TAIL = 64 * 1024  # bytes of the file, in which each line has its time


def message(container: Container, exit_code: int, file: str, log: str) -> str:
    """The message of a container that has ended. ``file``, ``log``: where its message and its log lie; they need not be there."""
    said = _tail(file, MAXIMUM) if container.termination_message_path else b""
    if not said and exit_code and container.termination_message_policy == "FallbackToLogsOnError":
        entries = [entry for line in _tail(log, _LOG_TAIL).split(b"\n") if (entry := decode(line)) is not None]
        text = b"".join(entry.text + b"\n" * entry.whole for entry in entries)[-LOG_BYTES:]
        said = b"".join(text.splitlines(keepends=True)[-LOG_LINES:])
    return said.decode(errors="replace")


def _tail(path: str, size: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError:
        return b""
