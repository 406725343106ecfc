"""Chunks of a stream to lines: the frame of a watch.

Sans-IO. A line may come in many chunks (an object may be a megabyte) and a chunk may hold many lines; joining happens once a line.
"""

from __future__ import annotations


class Lines:
    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and give the lines that it completes, without their ends; blank lines are left out."""
        first, *rest = chunk.split(b"\n")
        self._parts.append(first)
        if not rest:
            return []
        lines = [b"".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]] if rest[-1] else []
        return [line for line in lines if line.strip()]
