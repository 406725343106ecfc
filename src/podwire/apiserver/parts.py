"""Subresources through which one part of an object is written, and nothing else: the object is read, sent or patched whole.

Here: what they have in common. Not here: which part, and what is wrong with it (``ephemeral.py``, ``resize.py``, ``approval.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from podwire.apiserver import bodies, reading, status, writing
from podwire.apiserver.admission import gate
from podwire.apiserver.answers import Answer, Tree, answer, decode, encode
from podwire.apiserver.api import Api, latest_tree
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import Request
from podwire.apiserver.validation import FieldError

Take = Callable[[Api, Request, Kind, Tree, Tree, Tree], list[FieldError]]


@dataclass(frozen=True, slots=True)
class Part:
    """``take(api, request, kind, tree, sent, old)`` brings the part of ``sent`` into ``tree``, a copy of ``old``; it gives what is wrong.

    ``wanted``: the part is of what is wanted, so that a change is a new generation.
    """

    take: Take
    wanted: bool = True

    async def get(self, api: Api, request: Request, kind: Kind) -> Answer:
        """Answer to GET: the object. Raises Failure."""
        return await reading.get(api, request, kind)

    async def update(self, api: Api, request: Request, kind: Kind) -> Answer:
        """Answer to PUT of the object with the part. Raises Failure."""
        return await self._write(api, request, kind, _live(api, request, kind), bodies.of_kind(request, kind))

    async def patch(self, api: Api, request: Request, kind: Kind) -> Answer:
        """Answer to PATCH of it. Raises Failure."""
        change, old = writing.read_patch(request), _live(api, request, kind)
        return await self._write(api, request, kind, old, writing.patched(request, kind, old, change))

    async def _write(self, api: Api, request: Request, kind: Kind, old: Tree, sent: Tree) -> Answer:
        bodies.check_schema(request, kind, sent)
        for field in ("resourceVersion", "uid"):
            if sent.get("metadata", {}).get(field, "") not in ("", old["metadata"][field]):
                raise status.modified(kind, request.target.name)
        tree = decode(encode(old))
        if errors := self.take(api, request, kind, tree, sent, old):
            raise status.invalid(kind, request.target.name, errors)
        if await gate.refused(api, request, kind, tree, old):
            writing.check_latest(api, kind, old)
        if tree != old:
            if self.wanted:
                tree["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
            if not request.dry_run:
                await writing.store_as_is(api, kind, tree)
        return answer(tree)


def _live(api: Api, request: Request, kind: Kind) -> Tree:
    old = latest_tree(api, kind, request.target.namespace, request.target.name)
    if old is None:
        raise status.not_found(kind, request.target.name)
    return old
