"""How the command line looks: colour where a person reads, plain text everywhere else.

NO_COLOR (https://no-color.org) and a pipe switch colour off; ``table`` lines columns up as kubectl does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

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
