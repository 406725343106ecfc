"""The steps of a node pool's upgrade: which one is next, as things are. Pure.

What is kept (``changes.Upgrade``) changes together with the nodes, so whoever was interrupted between two steps finds what to do next.
``surge`` nodes more than there were are there at most, and ``unavailable`` fewer; so many together are replaced at once.

Source: https://cloud.google.com/kubernetes-engine/docs/concepts/node-pool-upgrade-strategies#surge
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from podwire.cluster.changes import Upgrade


@dataclass(frozen=True)
class Add:
    """One more node, in the zone of ``like``."""

    like: str


@dataclass(frozen=True)
class Replace:
    """These nodes are drained and go; the ones that were made ahead are for them, and the rest is made now. (old, made ahead or "")"""

    nodes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Remove:
    """A node that was made ahead and that nobody needs any more goes."""

    node: str


def next_step(now: Upgrade, surge: int, unavailable: int, first: Collection[str] = ()) -> Add | Replace | Remove | None:
    """Give the next step; None: there is nothing to do. ``first``: nodes that are cordoned already, which go before others."""
    old = sorted(now.old, key=lambda name: name not in first)
    if len(now.surplus) > len(old):
        return Remove(now.surplus[-1])
    if not old:
        return None
    if len(now.surplus) < min(surge, len(old)):
        return Add(old[len(now.surplus)])
    batch = old[: len(now.surplus) + unavailable]
    ahead = (*now.surplus, *("" for _ in batch))
    return Replace(tuple(zip(batch, ahead, strict=False)))
