"""Where writes meet admission: before they are made, and when they are made.

Webhooks are asked over the network, so others may write meanwhile. Whoever waited for one looks again at what is stored, and when that has
changed, the write is made anew from the start (``Overtaken``), as if the client had come a moment later.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from podwire.apiserver import status
from podwire.apiserver.admission import levels
from podwire.apiserver.admission.attributes import CREATE, DELETE, UPDATE, Attributes
from podwire.apiserver.admission.chain import CHANGES
from podwire.apiserver.admission.mutations import Mutating, Refused, denied
from podwire.apiserver.admission.policies import Matter
from podwire.apiserver.admission.seeing import converted, seen_as
from podwire.apiserver.admission.verdicts import Verdict
from podwire.apiserver.answers import Tree, decode, encode
from podwire.apiserver.api import Api
from podwire.apiserver.cel.values import Fault
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
            request.annotations.clear()
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
        request.annotations,
        request.spoken,
    )


async def changed(api: Api, request: Request, kind: Kind, tree: Tree, old: Tree | None, part: str = "") -> tuple[Tree, bool]:
    """Let those change an object who do; give it, and whether others may have written meanwhile. Raises Failure."""
    admission = api.admission
    mutator = admission.mutator
    if not admission.mutating and not mutator.bindings and kind.resource not in CHANGES:
        return tree, False
    asked = _asked(request, kind, tree, old, part)
    hooks = admission.caller.concerned(admission.mutating, asked)
    matters = mutator.matters(asked) if mutator.bindings else []
    if not hooks and not matters:
        admission.change(asked)
        return tree, False
    kind.default(tree)
    admission.change(asked)
    is_changed = await _mutated(api, asked, matters)
    before = asked.tree
    await admission.caller.mutate(hooks, asked, _shape)
    # Who asks for it is put once more to what those after him made.
    again = [one for one in matters if one.policy.again] if is_changed or asked.tree != before else []
    if await _mutated(api, asked, again):
        await admission.caller.mutate([one for one in hooks if one.webhook.may_be_asked_again], asked, _shape)
    made = asked.tree
    assert made is not None
    for key in ("name", "namespace", "uid"):
        if made["metadata"].get(key) != tree["metadata"].get(key):
            made["metadata"][key] = tree["metadata"].get(key)  # what names an object is not a webhook's
    return made, True


async def _mutated(api: Api, asked: Attributes, matters: Sequence[Matter[Mutating]]) -> bool:
    """Let policies change ``asked.tree``; say whether one did. Raises Failure, of those that must work."""
    is_changed = False
    refusals: list[str] = []
    for matter in matters:
        params = matter.checked(await _params(api, asked, matter))
        for param in () if isinstance(params, Fault) else params:
            seen = await seen_as(asked, matter.kind)
            before = seen.tree
            try:
                for tree in api.admission.mutator.mutated(matter, seen, param):
                    seen.tree = _shape(seen, tree, strict=True)
            except (Refused, ValueError) as error:
                refusals += [denied(matter, str(error))] if matter.policy.must_work else []
            if seen.tree is not None and seen.tree != before:
                is_changed = True
                asked.tree = seen.tree if seen is asked else _shape(asked, (await converted([seen.tree], asked.kind))[0])
        if isinstance(params, Fault) and matter.policy.must_work:
            refusals.append(denied(matter, str(params)))
    if refusals:
        causes = [{"message": one} for one in refusals]
        raise status.Failure(403, "Invalid", refusals[0], status.forbidden(asked.own, asked.name, "", causes).details)
    return is_changed


async def _params(api: Api, asked: Attributes, matter: Matter[Any]) -> list[Tree]:
    """Give the parameters that a binding names."""
    about, reference = matter.policy.param_kind, matter.reference
    return await api.admission.params(about, reference, asked.namespace) if about is not None and reference is not None else []


def _shape(asked: Attributes, made: object, *, strict: bool = False) -> Tree:
    """Bring what a webhook or a policy made into its kind's shape. Raises ValueError; Failure (500) for unknown fields, where strict."""
    if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
        raise ValueError("the patch leaves no object")  # noqa: TRY004 (what a user sent)
    tree = decode(encode(made))
    tree["apiVersion"], tree["kind"] = asked.kind.api_version, asked.kind.kind
    try:
        unknown = prune_and_check(asked.kind, tree)
    except Mistyped as error:
        raise ValueError(str(error)) from None
    if unknown and strict and asked.kind.custom is None:
        raise status.internal(f"strict decoding error: {', '.join(unknown)}")
    asked.kind.default(tree)
    return tree


async def refused(api: Api, request: Request, kind: Kind, tree: Tree | None, old: Tree | None, part: str = "") -> bool:
    """Ask those who may refuse a write; say whether others may have written meanwhile. Raises the Failure of who refuses."""
    admission = api.admission
    if not admission.may_refuse(kind, (tree or old or {})["metadata"].get("namespace", "")):
        return False
    asked = _asked(request, kind, tree, old, part)
    admission.refuse(asked)
    waited = await levels.changed(api, asked)
    if admission.judge.bindings:
        waited = await _judged(api, asked) or waited
    hooks = admission.caller.concerned(admission.validating, asked)
    if not hooks:
        return waited
    await admission.caller.validate(hooks, asked)
    return True


async def _judged(api: Api, asked: Attributes) -> bool:
    """Put a write to policies; say whether there were any: objects and parameters in other versions are waited for. Raises Failure."""
    admission = api.admission
    matters, verdict = admission.judge.matters(asked), Verdict()
    for matter in matters:
        params = matter.checked(await _params(api, asked, matter))
        admission.judge.put(matter, await seen_as(asked, matter.kind), params, verdict)
    verdict.pronounce(asked)
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
