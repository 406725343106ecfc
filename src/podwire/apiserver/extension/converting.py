"""How objects of a definition become objects of another of its versions: by a change of apiVersion, or by a program of its user's.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

from podwire.apiserver import status
from podwire.apiserver.answers import decode, encode
from podwire.apiserver.calls import Callee, Calls, NoAnswer
from podwire.apiserver.extension import review
from podwire.apiserver.kind import Kind, Tree

LIMIT_S = 30.0
_ROOM = 3 * 1024 * 1024  # bytes that an answer may have, beside as many as were asked

Convert = Callable[[list[Tree], Kind], Awaitable[list[Tree]]]


async def renamed(trees: list[Tree], to: Kind) -> list[Tree]:
    """Strategy ``None``: versions differ in their schemas alone."""
    return [{**decode(encode(tree)), "apiVersion": to.api_version} for tree in trees]


def of_definition(definition: Tree, calls: Calls) -> Convert:
    """Give what converts objects of a definition, as its ``spec.conversion`` says."""
    conversion = definition["spec"].get("conversion") or {}
    if conversion.get("strategy") != "Webhook":
        return renamed
    webhook = conversion["webhook"]
    callee, understood = Callee(webhook["clientConfig"]), tuple(webhook["conversionReviewVersions"])

    async def asked(trees: list[Tree], to: Kind) -> list[Tree]:
        uid = str(uuid4())
        try:
            version, body = review.question(trees, to.api_version, uid, understood)
            text = await calls.post(callee, body, LIMIT_S, 2 * len(body) + _ROOM)
            return review.taken(trees, review.objects(text, version, uid), to.api_version)
        except review.Unusable as error:
            why = str(error)
        except NoAnswer as error:
            why = f" failed: {error}"
        first = trees[0]
        raise status.Failure(500, "", f"conversion webhook for {first['apiVersion']}, Kind={first['kind']}{why}")

    return asked
