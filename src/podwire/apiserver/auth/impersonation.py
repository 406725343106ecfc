"""A request that wants to be taken for somebody else's (``kubectl --as``).

Here: whom it means, and what its sender must be allowed for it: to impersonate the user (or the ServiceAccount), each group, the uid and
each value of each extra, one by one. Not here: who decides.

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote

from podwire.apiserver import status
from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.auth.authorizer import Authorizer
from podwire.apiserver.auth.rbac import ACCOUNT_PREFIX, account_groups
from podwire.apiserver.authentication import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User

_IMPERSONATE = b"impersonate-"
_EXTRA = "impersonate-extra-"
_GROUP = "authentication.k8s.io"


def is_asked(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(key.startswith(_IMPERSONATE) for key, _ in headers)


def taken_for(authorizer: Authorizer, user: User, headers: Iterable[tuple[bytes, bytes]]) -> User:
    """Give the user as whom a request counts. Raises Failure (400, 403)."""
    name, uid = "", ""
    groups: list[str] = []
    extra: dict[str, list[str]] = {}
    for key, value in headers:
        if not key.startswith(_IMPERSONATE):
            continue
        text, word = value.decode("utf-8", "replace"), key.decode("latin-1")
        if word.startswith(_EXTRA):
            extra.setdefault(unquote(word.removeprefix(_EXTRA)).lower(), []).append(text)
        match word:
            case "impersonate-user":
                name = text
            case "impersonate-group":
                groups.append(text)
            case "impersonate-uid":
                uid = text
    if not name:
        raise status.bad_request("requested groups or uid without impersonating a user")
    for asked in _demands(name, groups, uid, extra):
        authorizer.demand(user, asked)
    return _as(name, groups, uid, tuple((key, tuple(values)) for key, values in extra.items()))


def _account(name: str) -> tuple[str, str] | None:
    """Read namespace and name of a ServiceAccount from a user's name."""
    namespace, colon, account = name.removeprefix(ACCOUNT_PREFIX).partition(":")
    return (namespace, account) if name.startswith(ACCOUNT_PREFIX) and colon and namespace and account else None


def _demands(name: str, groups: list[str], uid: str, extra: dict[str, list[str]]) -> Iterable[Attributes]:
    account = _account(name)
    if account is not None:
        yield Attributes("impersonate", "", "serviceaccounts", *account)
    else:
        yield Attributes("impersonate", "", "users", name=name)
    for group in groups:
        yield Attributes("impersonate", "", "groups", name=group)
    for key, values in extra.items():
        for value in values:
            yield Attributes("impersonate", _GROUP, f"userextras/{key}", name=value)
    if uid:
        yield Attributes("impersonate", _GROUP, "uids", name=uid)


def _as(name: str, groups: list[str], uid: str, extra: tuple[tuple[str, tuple[str, ...]], ...]) -> User:
    account = _account(name)
    if account is not None and not groups:
        groups = [*account_groups(account[0])]
    if name == ANONYMOUS.name:
        return ANONYMOUS if not groups else User(name, tuple(dict.fromkeys((*groups, UNAUTHENTICATED))), uid, extra)
    if UNAUTHENTICATED not in groups:
        groups = [*groups, AUTHENTICATED]
    return User(name, tuple(dict.fromkeys(groups)), uid, extra)
