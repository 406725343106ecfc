"""What a command failed of, in words for a person."""

from __future__ import annotations


class Problem(Exception):
    """The text says what failed and what to do. ``status`` is the exit status: 1 failed, 2 wrong usage."""

    status = 1

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        if status is not None:
            self.status = status
