"""CEL's authorizer: may the one who asks, or a ServiceAccount, do something else?

    authorizer.group('apps').resource('deployments').namespace('web').check('create').allowed()

Who answers is a value that the caller brings (``Asker``). Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from podwire.apiserver.cel.functions import define, on
from podwire.apiserver.cel.types import BOOL, STRING, Type
from podwire.apiserver.cel.values import no_overload

PATH_CHECK, GROUP_CHECK = Type("kubernetes.authorization.PathCheck"), Type("kubernetes.authorization.GroupCheck")
RESOURCE_CHECK, DECISION = Type("kubernetes.authorization.ResourceCheck"), Type("kubernetes.authorization.Decision")
AUTHORIZER = Type("kubernetes.authorization.Authorizer")


@dataclass(frozen=True)
class Question:
    """What is asked: ``who`` empty is the one whose request it is, else a ServiceAccount as ``NAMESPACE/NAME``."""

    who: str = ""
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    verb: str = ""


Asker = Callable[[Question], bool]


@dataclass(frozen=True)
class Authorizer:
    """Somebody to ask, and what is said so far."""

    ask: Asker
    question: Question = Question()


@dataclass(frozen=True)
class Decision:
    allowed: bool


def _more(**said: str) -> Callable[..., Authorizer]:
    """A function that adds its arguments to the question, in the order of the names."""

    def work(value: Any, *arguments: Any) -> Authorizer:
        if type(value) is not Authorizer or any(type(one) is not str for one in arguments):
            raise no_overload()
        return replace(value, question=replace(value.question, **dict(zip(said, arguments, strict=True))))

    return work


def _account(value: Any, namespace: Any, name: Any) -> Authorizer:
    if type(value) is not Authorizer:
        raise no_overload()
    return replace(value, question=Question(who=f"{namespace}/{name}"))


def _check(value: Any, verb: Any) -> Decision:
    if type(value) is not Authorizer:
        raise no_overload()
    return Decision(value.ask(replace(value.question, verb=verb)))


define("path", on(AUTHORIZER, STRING, gives=PATH_CHECK))(_more(path=""))
define("group", on(AUTHORIZER, STRING, gives=GROUP_CHECK))(_more(group=""))
define("serviceAccount", on(AUTHORIZER, STRING, STRING, gives=AUTHORIZER))(_account)
define("resource", on(GROUP_CHECK, STRING, gives=RESOURCE_CHECK))(_more(resource=""))
define("subresource", on(RESOURCE_CHECK, STRING, gives=RESOURCE_CHECK))(_more(subresource=""))
define("namespace", on(RESOURCE_CHECK, STRING, gives=RESOURCE_CHECK))(_more(namespace=""))
define("name", on(RESOURCE_CHECK, STRING, gives=RESOURCE_CHECK))(_more(name=""))
define("check", on(PATH_CHECK, STRING, gives=DECISION), on(RESOURCE_CHECK, STRING, gives=DECISION))(_check)
define("allowed", on(DECISION, gives=BOOL))(lambda value: value.allowed)
define("errored", on(DECISION, gives=BOOL))(lambda _value: False)
define("reason", on(DECISION, gives=STRING))(lambda _value: "")
define("error", on(DECISION, gives=STRING))(lambda _value: "")
