"""What a handler gives back: a whole answer, or one that goes on.

Here: the two shapes, and JSON. Not here: HTTP (``app.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from podwire.apiserver.managed_fields import Written

Tree = dict[str, Any]

SLICE = 256 * 1024  # bytes sent at once: what is bigger goes out in pieces, and others are served in between


@dataclass(slots=True)
class Answer:
    """A whole body."""

    code: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = b"application/json"


@dataclass(slots=True, eq=False)
class Stream:
    """A body in pieces. A watch has ``stop``, to be called when the client has gone or the server ends.

    ``release`` is called when it is over, begun or not. ``abort``, set by the application, ends a connection whose client does not read.
    """

    code: int
    pieces: AsyncIterator[bytes]
    stop: Callable[[], None] | None = None
    release: Callable[[], None] = lambda: None
    abort: Callable[[], None] = lambda: None
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()
    about: object = None  # the row of a watch


class TooDeep(ValueError):
    """A tree with more levels than can be written."""


def _written(value: object) -> orjson.Fragment:
    if isinstance(value, Written):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON")


_CANONICAL = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(tree: Any) -> bytes:
    """Give the canonical bytes: equal trees have equal bytes. Raises TooDeep.

    The copy costs little and saves much: what orjson gives is cut from a larger piece of memory, whose rest is lost while the bytes live.
    """
    try:
        return bytes(memoryview(orjson.dumps(tree, _written, _CANONICAL)))
    except TypeError as error:  # values come from JSON: nothing else can be wrong with them
        raise TooDeep(str(error)) from None


def decode(value: bytes) -> Tree:
    """Read bytes that ``encode`` made."""
    tree: Tree = orjson.loads(value)
    return tree


def answer(tree: Any, code: int = 200) -> Answer:
    return Answer(code, orjson.dumps(tree))
