"""How a cluster's nodes differ from its specification: added, deleted, stopped; and which zones are cut off. Pure.

What belongs here: the value that is kept beside the specification (``changes.json``), the ways to alter it, and the refusal of names that
are not there. What must not: which addresses a node gets (plan.py), doing it (switching.py).

Source: https://cloud.google.com/kubernetes-engine/docs/concepts/node-pools
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from podwire.cluster.problem import Problem


class Unknown(Problem):
    """There is no node, zone or node pool of this name; the text lists those that there are."""


class AddedNode(msgspec.Struct, frozen=True):
    """``index`` decides its addresses; no other node has it."""

    name: str
    pool: str
    zone: str
    index: int


class Upgrade(msgspec.Struct, frozen=True):
    """An upgrade of a node pool that is not complete: the nodes that are still to be replaced, and the new ones that were made ahead."""

    pool: str
    old: tuple[str, ...]
    surplus: tuple[str, ...] = ()


class Changes(msgspec.Struct, frozen=True):
    """``number`` grows with each change, so that two who change at once are told apart. ``deleted`` are nodes of the specification."""

    number: int = 0
    added: tuple[AddedNode, ...] = ()
    deleted: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    stopped_zones: tuple[str, ...] = ()
    upgrades: tuple[Upgrade, ...] = ()

    def stop(self, nodes: Iterable[str]) -> Changes:
        """These nodes are without power."""
        return self._next(stopped=_with(self.stopped, nodes))

    def start(self, nodes: Iterable[str]) -> Changes:
        """These nodes have power."""
        return self._next(stopped=_without(self.stopped, nodes))

    def stop_zone(self, zone: str) -> Changes:
        """The fabric drops what goes to and comes from the zone."""
        return self._next(stopped_zones=_with(self.stopped_zones, [zone]))

    def start_zone(self, zone: str) -> Changes:
        """The fabric carries it again."""
        return self._next(stopped_zones=_without(self.stopped_zones, [zone]))

    def delete(self, node: str) -> Changes:
        """The node is no more."""
        ours = {one.name for one in self.added}
        added = tuple(one for one in self.added if one.name != node)
        deleted = self.deleted if node in ours else _with(self.deleted, [node])
        upgrades = tuple(
            msgspec.structs.replace(one, old=_without(one.old, [node]), surplus=_without(one.surplus, [node])) for one in self.upgrades
        )
        return self._next(added=added, deleted=deleted, stopped=_without(self.stopped, [node]), upgrades=upgrades)

    def add(self, node: AddedNode) -> Changes:
        """There is one more."""
        return self._next(added=(*self.added, node))

    # Upgrades of pools -------------------------------------------------------------------------------------------------------

    def upgrade(self, pool: str) -> Upgrade | None:
        """What of a pool's upgrade is left to do."""
        return next((one for one in self.upgrades if one.pool == pool), None)

    def begin_upgrade(self, pool: str, old: Iterable[str]) -> Changes:
        """All of these nodes are to be replaced."""
        return self._next(upgrades=(*self._other_upgrades(pool), Upgrade(pool, tuple(old))))

    def end_upgrade(self, pool: str) -> Changes:
        """The pool is as it should be."""
        return self._next(upgrades=self._other_upgrades(pool))

    def add_ahead(self, node: AddedNode) -> Changes:
        """There is one more, for a node that is to be replaced."""
        now = self.upgrade(node.pool) or Upgrade(node.pool, ())
        more = msgspec.structs.replace(now, surplus=(*now.surplus, node.name))
        return msgspec.structs.replace(self.add(node), upgrades=(*self._other_upgrades(node.pool), more))

    def replace(self, old: str, new: AddedNode | str) -> Changes:
        """A node is no more; its place has one that was made ahead (its name), or one that comes now."""
        gone = self.delete(old)
        if not isinstance(new, str):
            return msgspec.structs.replace(gone, added=(*gone.added, new))
        upgrades = tuple(msgspec.structs.replace(one, surplus=_without(one.surplus, [new])) for one in gone.upgrades)
        return msgspec.structs.replace(gone, upgrades=upgrades)

    def _other_upgrades(self, pool: str) -> tuple[Upgrade, ...]:
        return tuple(one for one in self.upgrades if one.pool != pool)

    def _next(self, **fields: object) -> Changes:
        return msgspec.structs.replace(self, number=self.number + 1, **fields)


def encode(changes: Changes) -> bytes:
    """As it is kept."""
    return msgspec.json.encode(changes)


def decode(body: bytes) -> Changes:
    """Read it back. Raises ValueError."""
    return msgspec.json.decode(body, type=Changes)


def known(kind: str, names: Iterable[str], there: Sequence[str]) -> None:
    """Refuse names that are not there, in the words of whoever asked. Raises Unknown (exit status 1)."""
    for name in names:
        if name not in there:
            raise Unknown(f"there is no {kind} {name!r}; there are: {', '.join(there) or 'none'}")


def _with(names: tuple[str, ...], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*names, *more)))


def _without(names: tuple[str, ...], gone: Iterable[str]) -> tuple[str, ...]:
    out = set(gone)
    return tuple(name for name in names if name not in out)
