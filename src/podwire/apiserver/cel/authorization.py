"""The variable ``authorizer``: expressions that ask who may do what.

    authorizer.group('').resource('pods').namespace('x').check('create').allowed()
    authorizer.path('/healthz').check('get').reason()
    authorizer.serviceAccount('x', 'web').group('apps').resource('deployments').name('web').check('get').allowed()
    authorizer.requestResource.check('approve').allowed()

An authorizer is a user, at first who makes the request, and who decides. A question is put together word by word; it is asked by ``check``,
which costs so much that an expression has two. Nothing goes wrong with deciding here: ``errored`` is always false.

Here: the types, the values, the functions. Not here: who decides, and which expressions have the variable.

Source: https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from podwire.apiserver import validation
from podwire.apiserver.auth.attributes import Attributes, Decision
from podwire.apiserver.auth.rbac import ACCOUNT_PREFIX, account_groups
from podwire.apiserver.authentication import User
from podwire.apiserver.cel.functions import define, on
from podwire.apiserver.cel.types import BOOL, STRING, Type
from podwire.apiserver.cel.values import Fault, no_overload

_NAME = "kubernetes.authorization."
AUTHORIZER, PATH_CHECK, GROUP_CHECK = Type(f"{_NAME}Authorizer"), Type(f"{_NAME}PathCheck"), Type(f"{_NAME}GroupCheck")
RESOURCE_CHECK, DECISION = Type(f"{_NAME}ResourceCheck"), Type(f"{_NAME}Decision")

OWN, OF_REQUEST = "authorizer", "authorizer.requestResource"
VARIABLES: Mapping[str, Type] = {OWN: AUTHORIZER, OF_REQUEST: RESOURCE_CHECK}

_CHECK_COST = 350_000
V = TypeVar("V")
Decide = Callable[[User, Attributes, str], Decision]
"""Says whether a user may do something, to what a field selector names."""


@dataclass(frozen=True, slots=True)
class Authorizer:
    """A user, and who decides what he may do."""

    user: User
    decide: Decide


@dataclass(frozen=True, slots=True)
class PathCheck:
    """A question about a path that is no resource's."""

    authorizer: Authorizer
    path: str


@dataclass(frozen=True, slots=True)
class GroupCheck:
    """The beginning of a question about a resource."""

    authorizer: Authorizer
    group: str


@dataclass(frozen=True, slots=True)
class ResourceCheck:
    """A question about a resource. ``fields`` is the text of a field selector."""

    authorizer: Authorizer
    group: str
    plural: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    fields: str = ""


def _text(value: Any) -> str:
    if type(value) is not str:
        raise no_overload()
    return value


def _some_text(what: str, value: Any) -> str:
    if not _text(value).strip():
        raise Fault(f"{what} must not be empty")
    return str(value)


def _of(kind: type[V], value: Any) -> V:
    if type(value) is not kind:
        raise no_overload()
    return value


# Whom, and about what ------------------------------------------------------------------------------------------------------------


@define("serviceAccount", on(AUTHORIZER, STRING, STRING, gives=AUTHORIZER))
def _service_account(value: Any, namespace: Any, name: Any) -> Authorizer:
    if validation.dns_subdomain(_text(name)):
        raise Fault("Invalid service account name")
    if validation.dns_label(_text(namespace)):
        raise Fault("Invalid service account namespace")
    return replace(_of(Authorizer, value), user=User(f"{ACCOUNT_PREFIX}{namespace}:{name}", account_groups(namespace)))


@define("path", on(AUTHORIZER, STRING, gives=PATH_CHECK))
def _path(value: Any, path: Any) -> PathCheck:
    return PathCheck(_of(Authorizer, value), _some_text("path", path))


@define("group", on(AUTHORIZER, STRING, gives=GROUP_CHECK))
def _group(value: Any, group: Any) -> GroupCheck:
    return GroupCheck(_of(Authorizer, value), _text(group))


@define("resource", on(GROUP_CHECK, STRING, gives=RESOURCE_CHECK))
def _resource(value: Any, plural: Any) -> ResourceCheck:
    check = _of(GroupCheck, value)
    return ResourceCheck(check.authorizer, check.group, _some_text("resource", plural))


def _narrowed(field: str) -> Callable[[Any, Any], ResourceCheck]:
    def narrow(value: Any, text: Any) -> ResourceCheck:
        said: dict[str, Any] = {field: _text(text)}
        return replace(_of(ResourceCheck, value), **said)

    return narrow


def _selector_cost(_check: Any, text: Any) -> int:
    """Reading a selector: its characters, and a requirement for every second of them."""
    length = len(text) if type(text) is str else 0
    return 10 + -(-length // 10) + -(-length // 2) * 50


_NARROWING = on(RESOURCE_CHECK, STRING, gives=RESOURCE_CHECK)
for _field in ("subresource", "namespace", "name"):
    define(_field, _NARROWING)(_narrowed(_field))
define("fieldSelector", _NARROWING, cost=_selector_cost)(_narrowed("fields"))


@define("labelSelector", _NARROWING, cost=_selector_cost)
def _label_selector(value: Any, text: Any) -> ResourceCheck:
    """No authorizer here goes by labels: a question is the same with them."""
    _text(text)
    return replace(_of(ResourceCheck, value))


# The question, and the answer --------------------------------------------------------------------------------------------------------


@define("check", on(PATH_CHECK, STRING, gives=DECISION), on(RESOURCE_CHECK, STRING, gives=DECISION), cost=_CHECK_COST)
def _check(value: Any, verb: Any) -> Decision:
    one: Authorizer = value.authorizer
    if type(value) is PathCheck:
        return one.decide(one.user, Attributes(_text(verb), path=value.path), "")
    check = _of(ResourceCheck, value)
    resource = f"{check.plural}/{check.subresource}" if check.subresource else check.plural
    return one.decide(one.user, Attributes(_text(verb), check.group, resource, check.namespace, check.name), check.fields)


define("allowed", on(DECISION, gives=BOOL))(lambda value: _of(Decision, value).allowed)
define("reason", on(DECISION, gives=STRING))(lambda value: _of(Decision, value).reason)


@define("errored", on(DECISION, gives=BOOL))
def _errored(value: Any) -> bool:
    _of(Decision, value)
    return False


@define("error", on(DECISION, gives=STRING))
def _error(value: Any) -> str:
    _of(Decision, value)
    return ""
