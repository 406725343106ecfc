"""JSON trees written as YAML: block style, keys in order, two blanks a level, as clients know it from ``kubectl -o yaml``.

What reads YAML 1.1 and what reads 1.2 must read the same: a text is written plain only when no reader can take it for anything else, as
several lines when it has several, and quoted otherwise. Pure.

Source: https://yaml.org/spec/1.1/ and https://yaml.org/spec/1.2.2/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

# A letter first, or an address: no number, date or time. Inside, nothing that ends a plain text.
_PLAIN = re.compile(r"(?:[A-Za-z_/](?:[\w./@+=*%$()~-]|:(?=[^\s,])|(?<! ) (?=[\w./@+=(-]))*|\d+\.\d+\.\d+\.\d+(?:/\d+)?)\Z", re.ASCII)
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"))
_LITERAL = re.compile(
    r"[^\s\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff][^\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]*\Z"
)
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONG_KEY = 256  # letters: a longer key stands on a line of its own, since readers look only so far for its colon

Tree = Any


def written(tree: Tree) -> bytes:
    """Write a tree as one document."""
    return "".join(_document(tree)).encode()


def _document(tree: Tree) -> Iterator[str]:
    lines: list[str] = []
    if isinstance(tree, dict | list) and tree:
        _block(lines, tree, "")
    else:
        lines.append(_scalar(tree, "  "))
    return (f"{line}\n" for line in lines)


def _block(lines: list[str], value: dict[str, Tree] | list[Tree], pad: str) -> None:
    """Write what holds something, each line behind ``pad``."""
    if isinstance(value, dict):
        for key in sorted(value):
            _pair(lines, key, value[key], pad)
        return
    for item in value:
        if isinstance(item, dict | list) and item:
            first = len(lines)
            _block(lines, item, pad + "  ")
            lines[first] = f"{pad}- {lines[first][len(pad) + 2 :]}"
        else:
            lines.append(f"{pad}- {_scalar(item, pad + '  ')}")


def _pair(lines: list[str], key: str, value: Tree, pad: str) -> None:
    name = _text(key)
    head = f"{pad}{name}:"
    if len(name) > _LONG_KEY:
        lines.append(f"{pad}? {name}")
        head = f"{pad}:"
    if isinstance(value, dict | list) and value:
        lines.append(head)
        _block(lines, value, pad if isinstance(value, list) else pad + "  ")
    else:
        lines.append(f"{head} {_scalar(value, pad + '  ')}")


def _scalar(value: Tree, pad: str) -> str:
    if type(value) is str:
        return _lines(value, pad) if "\n" in value else _text(value)
    return _OTHERS[type(value)](value)


def _lines(text: str, pad: str) -> str:
    """Write a text of several lines, each behind ``pad``."""
    body = text.removesuffix("\n")
    if body.endswith("\n") or not _LITERAL.match(body):
        return _quoted(text)
    mark = "|" if body != text else "|-"
    return "\n".join([mark, *(f"{pad}{line}" if line else "" for line in body.split("\n"))])


def _text(text: str) -> str:
    return text if _PLAIN.match(text) and text.lower() not in _WORDS else _quoted(text)


def _quoted(text: str) -> str:
    quoted = orjson.dumps(text).decode()
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def _float(value: float) -> str:
    text = repr(value)
    # YAML 1.1 takes 1e+23 for a text.
    return text if "e" not in text or "." in text else text.replace("e", ".0e")


_OTHERS: dict[type, Callable[[Any], str]] = {
    bool: lambda value: "true" if value else "false",
    int: str,
    float: _float,
    type(None): lambda _value: "null",
    dict: lambda _value: "{}",
    list: lambda _value: "[]",
}
