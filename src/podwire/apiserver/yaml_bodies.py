"""YAML as clients send it: read only after it is known to be small and flat enough.

YAML can say much with little: an alias of an alias of a list is a list of lists of lists, and some levels of it are more than any memory;
so are brackets in brackets more than the parser's stack. So the document is first gone through event by event, which costs neither: how
deep it is, and how many nodes its aliases stand for, merge keys included. What is too much of either is refused before it is made.

Source: https://yaml.org/spec/1.2.2/#71-alias-nodes
"""

from __future__ import annotations

from typing import Any

DEEPEST = 500  # levels; what is stored has fewer
ALIASED = 50_000  # nodes that all aliases together may stand for


class Refused(ValueError):
    """Not YAML, or too much of it. The text says what is wrong."""


def read(body: bytes) -> Any:
    """Read one document. Raises Refused."""
    import yaml  # most clients send JSON

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check(yaml, loader, body)
        return yaml.load(body, Loader=loader)  # noqa: S506 (a safe loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused(str(error)) from None


def _check(yaml: Any, loader: Any, body: bytes) -> None:
    """Go through the events of a document. Raises Refused, YAMLError."""
    open_ones: list[tuple[str, int]] = []  # collections: anchor, nodes before it
    anchors: dict[str, int] = {}  # how many nodes an alias stands for
    nodes = aliased = 0
    for event in yaml.parse(body, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                raise Refused(f"document contains an alias of something that holds it, or of nothing: *{event.anchor}")
            nodes += anchors[event.anchor]
            aliased += anchors[event.anchor]
            if aliased > ALIASED:
                raise Refused("document contains excessive aliasing")
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                anchors[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((event.anchor or "", nodes))
            anchors.pop(event.anchor, None)
            if len(open_ones) > DEEPEST:
                raise Refused("document is nested too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_ones.pop()
            nodes += 1
            if anchor:
                anchors[anchor] = nodes - before
