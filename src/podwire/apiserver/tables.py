"""Tables: what ``kubectl get`` shows, made on the server's side.

Here: the form (meta.k8s.io/v1 Table). Not here: the columns and cells of a kind (``kinds/``), how a value is printed (``cells.py``).
The present moment is a parameter.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from podwire.apiserver.kind import Kind, Tree

_ABOUT = {
    "Name": "The object's name, unique among its kind within its namespace.",
    "Age": "How long ago the object was made.",
}


def columns(kind: Kind) -> list[dict[str, Any]]:
    """Describe the columns of a kind, in order."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or _ABOUT.get(column.name, column.name),
            "priority": column.priority,
        }
        for column in kind.columns
    ]


def partial(tree: Tree) -> Tree:
    """Give an object's metadata alone, as PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": tree["metadata"]}


def row(kind: Kind, tree: Tree, now: datetime, include: str = "Metadata") -> Tree:
    """Make one row. ``include`` says what goes with the cells: ``Metadata``, ``Object`` (all of it) or ``None``."""
    made: Tree = {"cells": kind.row(tree, now)}
    if include == "Object":
        made["object"] = tree
    elif include != "None":
        made["object"] = partial(tree)
    return made


def table(kind: Kind, trees: Iterable[Tree], now: datetime, *, include: str = "Metadata", metadata: Tree | None = None) -> Tree:
    """Make a Table. ``metadata`` is that of the list (resourceVersion, continue, remainingItemCount)."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata or {},
        "columnDefinitions": columns(kind),
        "rows": [row(kind, tree, now, include) for tree in trees],
    }
