"""What is asked of the API, as authorization sees it, and what authorization says.

Pure. Here: the two values and the API's words for a refusal. Not here: who decides.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authorization/#review-your-request-attributes
"""

from __future__ import annotations

from typing import NamedTuple


class Attributes(NamedTuple):
    """What is asked. ``resource`` is ``plural`` or ``plural/subresource``; a ``path`` that is not empty is asked for instead of a resource.

    ``namespace`` of a Namespace is itself. ``name`` is also the one that a list or a watch names by its field selector ``metadata.name=``;
    ``fields`` are all equalities of that selector, ``(field, value)``.
    """

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: tuple[tuple[str, str], ...] = ()


class Decision(NamedTuple):
    """``reason`` says why, where there is more to say than that no rule allows it."""

    allowed: bool
    reason: str = ""


def refusal(user: str, asked: Attributes, reason: str = "") -> str:
    """Say in the API's words what a user may not do."""
    if asked.path:
        text = f'forbidden: User "{user}" cannot {asked.verb} path "{asked.path}"'
    else:
        plural = asked.resource.split("/")[0]
        what = f"{plural}.{asked.group}" if asked.group else plural
        named = f'{what} "{asked.name}"' if asked.name else what
        where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
        text = f'{named} is forbidden: User "{user}" cannot {asked.verb} resource "{asked.resource}" in API group "{asked.group}" {where}'
    return f"{text}: {reason}" if reason else text
