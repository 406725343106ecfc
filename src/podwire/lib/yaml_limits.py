"""How much a YAML text may stand for, looked at before it is read.

YAML can say much with little: an alias of an alias of a list is a list of lists of lists, and some levels of it are more than any memory;
so are brackets in brackets more than the parser's stack, which ends the process. So a text is first gone through event by event, which
costs neither: how deep each document is, and how many nodes its aliases stand for, merge keys included. What belongs here: that count.
What must not: reading.

Source: https://yaml.org/spec/1.2.2/#71-alias-nodes
"""

from __future__ import annotations

from typing import Any

DEEPEST = 500  # levels; what is stored has fewer
ALIASED = 50_000  # nodes that all aliases of a document together may stand for


class Excessive(ValueError):
    """More than may be read. The text says of what, ``line`` (from 1) where."""

    def __init__(self, words: str, mark: Any) -> None:
        super().__init__(words)
        self.line: int = mark.line + 1


def check(text: str | bytes, loader: Any) -> None:
    """Go through the events of all documents as the loader class of PyYAML reads them. Raises Excessive, YAMLError."""
    import yaml  # most of what is read is JSON, or nothing

    open_ones: list[tuple[str, int]] = []  # collections: anchor, nodes before it
    anchors: dict[str, int] = {}  # how many nodes an alias stands for
    nodes = aliased = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                words = f"document contains an alias of something that holds it, or of nothing: *{event.anchor}"
                raise Excessive(words, event.start_mark)
            nodes += anchors[event.anchor]
            aliased += anchors[event.anchor]
            if aliased > ALIASED:
                raise Excessive("document contains excessive aliasing", event.start_mark)
        elif isinstance(event, yaml.ScalarEvent):
            nodes += 1
            if event.anchor:
                anchors[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((event.anchor or "", nodes))
            anchors.pop(event.anchor or "", None)
            if len(open_ones) > DEEPEST:
                raise Excessive("document is nested too deeply", event.start_mark)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_ones.pop()
            nodes += 1
            if anchor:
                anchors[anchor] = nodes - before
        elif isinstance(event, yaml.DocumentStartEvent):
            anchors, aliased = {}, 0
