"""The cells of custom objects: the columns that a definition adds, else their age.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#additional-printer-columns
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson

from podwire.apiserver.cells import age
from podwire.apiserver.extension import paths
from podwire.apiserver.kind import NAME, Column, Tree

_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_AGE_TEXT = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in "
    "happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC."
)


def columns(definitions: list[Tree]) -> tuple[tuple[Column, ...], Callable[[Tree, datetime], list[Any]]]:
    """Give the columns that a definition's version asks for, and what makes a row of them. Raises ValueError for a bad path."""
    asked = definitions or [{**_AGE, "description": _AGE_TEXT}]
    made = [
        Column(one["name"], one["type"], one.get("format", ""), one.get("priority", 0), one.get("description") or _described(one))
        for one in asked
    ]
    cells = [_cell(one["type"], paths.find(one["jsonPath"])) for one in asked]

    def row(tree: Tree, now: datetime) -> list[Any]:
        return [tree["metadata"].get("name", ""), *(cell(tree, now) for cell in cells)]

    return (NAME, *made), row


def _described(column: Tree) -> str:
    return f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"


def _cell(kind: str, find: Callable[[Any], Any]) -> Callable[[Tree, datetime], Any]:
    def cell(tree: Tree, now: datetime) -> Any:
        value = next(iter(find(tree)), None)
        return None if value is None else _shown(kind, value, now)

    return cell


def _shown(kind: str, value: Any, now: datetime) -> Any:
    match kind:
        case "integer":
            return int(value) if type(value) in (int, float) else None
        case "number":
            return value if type(value) in (int, float) else None
        case "boolean":
            return value if type(value) is bool else None
        case "date":
            return age(value, now) if isinstance(value, str) else None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return orjson.dumps(value).decode()
