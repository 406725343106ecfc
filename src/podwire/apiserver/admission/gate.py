"""Where writes meet admission: before they are made, and when they are made.

Webhooks are asked over the network, so others may write meanwhile. Whoever waited for one looks again at what is stored, and when that has
changed, the write is made anew from the start (``Overtaken``), as if the client had come a moment later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from podwire.apiserver import status
from podwire.apiserver.admission.attributes import CREATE, DELETE, UPDATE, Attributes
from podwire.apiserver.admission.chain import CHANGES
from podwire.apiserver.admission.seeing import seen_as
from podwire.apiserver.answers import Tree, decode, encode
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import Request
from podwire.apiserver.schema import Mistyped, prune_and_check

_TRIES = 8
T = TypeVar("T")


class Overtaken(Exception):
    """The object changed while webhooks were asked."""


async def settled(request: Request, kind: Kind, write: Callable[[], Awaitable[T]]) -> T:
    """Make a write, anew when it was overtaken. Raises Failure."""
    warned = len(request.warnings)
    for _ in range(_TRIES):
        try:
            return await write()
        except Overtaken:
            del request.warnings[warned:]
    raise status.modified(kind, request.target.name)


def _asked(request: Request, kind: Kind, tree: Tree | None, old: Tree | None, part: str) -> Attributes:
    metadata = (tree or old or {})["metadata"]
    operation = DELETE if tree is None else CREATE if old is None else UPDATE
    return Attributes(
        operation,
        kind,
        metadata.get("namespace", ""),
        metadata.get("name", ""),
        tree,
        old,
        request.user,
        part or request.target.subresource,
        request.dry_run,
        request.warnings,
        request.spoken,
    )


async def changed(api: Api, request: Request, kind: Kind, tree: Tree, old: Tree | None, part: str = "") -> tuple[Tree, bool]:
    """Let those change an object who do; give it, and whether others may have written meanwhile. Raises Failure."""
    admission = api.admission
    if not admission.mutating and kind.resource not in CHANGES:
        return tree, False
    asked = _asked(request, kind, tree, old, part)
    hooks = admission.caller.concerned(admission.mutating, asked)
    if not hooks:
        admission.change(asked)
        return tree, False
    kind.default(tree)
    admission.change(asked)
    await admission.caller.mutate(hooks, asked, _shape)
    made = asked.tree
    assert made is not None
    for key in ("name", "namespace", "uid"):
        if made["metadata"].get(key) != tree["metadata"].get(key):
            made["metadata"][key] = tree["metadata"].get(key)  # what names an object is not a webhook's
    return made, True


def _shape(asked: Attributes, made: object) -> Tree:
    """Bring what a webhook made into its kind's shape. Raises ValueError."""
    if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
        raise ValueError("the patch leaves no object")  # noqa: TRY004 (what a user sent)
    tree = decode(encode(made))
    tree["apiVersion"], tree["kind"] = asked.kind.api_version, asked.kind.kind
    try:
        prune_and_check(asked.kind, tree)
    except Mistyped as error:
        raise ValueError(str(error)) from None
    asked.kind.default(tree)
    return tree


async def refused(api: Api, request: Request, kind: Kind, tree: Tree | None, old: Tree | None, part: str = "") -> bool:
    """Ask those who may refuse a write; say whether others may have written meanwhile. Raises the Failure of who refuses."""
    admission = api.admission
    if not admission.validating and not admission.judge.bindings and not admission.ranges:
        return False
    asked = _asked(request, kind, tree, old, part)
    admission.refuse(asked)
    waited = await _judged(api, asked) if admission.judge.bindings else False
    hooks = admission.caller.concerned(admission.validating, asked)
    if not hooks:
        return waited
    await admission.caller.validate(hooks, asked)
    return True


async def _judged(api: Api, asked: Attributes) -> bool:
    """Put a write to policies; say whether there were any: objects and parameters in other versions are waited for. Raises Failure."""
    admission = api.admission
    matters = admission.judge.matters(asked)
    for matter in matters:
        about, reference = matter.policy.param_kind, matter.reference
        found = await admission.params(about, reference, asked.namespace) if about is not None and reference is not None else []
        seen = await seen_as(asked, matter.kind)
        admission.judge.validate(matter, seen, matter.checked(found))
    return bool(matters)


async def deleted(api: Api, request: Request, kind: Kind, tree: Tree) -> bool:
    """The same for a deletion, about which both kinds of webhooks are asked; none can change anything."""
    admission = api.admission
    if not admission.asks_of_deletions:
        return False
    asked = _asked(request, kind, None, tree, "")
    hooks = admission.caller.concerned(admission.mutating, asked)
    if hooks:
        await admission.caller.validate(hooks, asked)
    return await refused(api, request, kind, None, tree) or bool(hooks)
