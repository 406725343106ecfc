"""What expressions of admission see as ``authorizer``: who makes the request, and the server's own authorizers to be asked about him.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression
"""

from __future__ import annotations

from functools import partial
from typing import Any

from podwire.apiserver import status
from podwire.apiserver.admission.attributes import CREATE, Attributes
from podwire.apiserver.auth.attributes import Attributes as Question
from podwire.apiserver.auth.attributes import Decision
from podwire.apiserver.auth.authorizer import Authorizer
from podwire.apiserver.authentication import User
from podwire.apiserver.cel import authorization
from podwire.apiserver.cel.authorization import OF_REQUEST, OWN, ResourceCheck
from podwire.apiserver.selectors import field_terms


def values(authorizer: Authorizer, asked: Attributes) -> dict[str, Any]:
    """Give the variables of a request."""
    own = authorization.Authorizer(asked.user, partial(_decide, authorizer))
    kind, namespace = asked.own, asked.namespace
    if kind.resource == "namespaces" and asked.operation != CREATE:
        namespace = asked.name  # a Namespace is in itself
    check = ResourceCheck(own, kind.group, kind.plural, asked.subresource, namespace, asked.name)
    return {OWN: own, OF_REQUEST: check}


def _decide(authorizer: Authorizer, user: User, question: Question, selector: str) -> Decision:
    """Ask, with the equalities of a field selector; one that cannot be read says nothing."""
    try:
        fields = tuple((field, value) for field, equal, value in field_terms(selector) if equal) if selector else ()
    except status.Failure:
        fields = ()
    return authorizer.decide(user, question._replace(fields=fields))
