"""How the command line looks: colour where a person reads, plain text everywhere else.

NO_COLOR (https://no-color.org) and a pipe switch colour off; ``table`` lines columns up as kubectl does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import click


def coloured(stream: TextIO | None = None) -> bool:
    """Say whether colour may be used on the stream (default: standard output)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and (stream or sys.stdout).isatty()


def style(text: str, colour: str, *, bold: bool = False, stream: TextIO | None = None) -> str:
    """Colour a text if the stream shows colours."""
    return click.style(text, fg=colour, bold=bold or None) if coloured(stream) else text


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out rows below their head, columns three spaces apart."""
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts)


def node_state(node: Mapping[str, Any]) -> str:
    """Say how a node is, as kubectl does."""
    return ("Ready" if node["ready"] else "NotReady") + (",SchedulingDisabled" if node.get("unschedulable") else "")


class StatusLine:
    """One line on a terminal that says what goes on; nothing in a pipe. ``clear`` it before anything else is printed."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._shown:
            width = os.get_terminal_size(2).columns or 80  # 0 where nobody has told the terminal
            sys.stderr.write("\r\x1b[K" + text[: width - 1])
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
