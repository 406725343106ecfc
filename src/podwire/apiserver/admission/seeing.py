"""Objects as who judges them wants them: in the kind and version that a rule names, where the same objects are served in several.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#matching-requests-matchpolicy
"""

from __future__ import annotations

from dataclasses import replace

from podwire.apiserver import conversion, status
from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.answers import Tree, decode, encode
from podwire.apiserver.kind import Kind


async def converted(trees: list[Tree], kind: Kind) -> list[Tree]:
    """Give objects in another kind. Raises Failure (500)."""
    try:
        return await conversion.across(trees, kind)
    except status.Failure as failure:
        raise status.internal(failure.message) from None


async def seen_as(asked: Attributes, kind: Kind) -> Attributes:
    """Give a request as if it were made for another kind of the same objects; for its own, it is the same. Raises Failure (500)."""
    if kind is asked.kind:
        return asked
    trees = [decode(encode(tree)) for tree in (asked.tree, asked.old) if tree is not None]
    found = iter(await converted(trees, kind))
    tree = None if asked.tree is None else next(found)
    old = None if asked.old is None else next(found)
    return replace(asked, kind=kind, tree=tree, old=old, spoken=asked.own)
