"""Which user and groups a container of an image has: by its own words, its Pod's, its image's, and the image's data bases. Pure.

What is said of a container goes before what is said of its Pod, that before the image's ``USER``. Names are looked up in the image's
/etc/passwd and /etc/group. Where the numbers that there are do not suffice, that is refused, and never another user taken.

Sources: https://kubernetes.io/docs/tasks/configure-pod-container/security-context/, the OCI image's ``config.User``;
https://kubernetes.io/docs/concepts/security/pod-security-standards/ (runAsNonRoot)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from podwire.images.documents import Execution
from podwire.objects.core import Container, Pod, PodSecurityContext, SecurityContext
from podwire.pods.admission import CannotStart

T = TypeVar("T")


@dataclass(frozen=True)
class Identity:
    """``groups``: further ones, the group itself among them; ``asked`` of them are those that the Pod names, the others the image's.

    ``home``: of the user, "/" where the image knows none.
    """

    user: int
    group: int
    groups: tuple[int, ...]
    asked: tuple[int, ...]
    home: str

    @property
    def numbers(self) -> tuple[int, ...]:
        """User, group and further groups."""
        return self.user, self.group, *self.groups


def identity(pod: Pod, container: Container, image: Execution, read: Callable[[str], str]) -> Identity:
    """Who a container is. ``read`` gives the text of a file of the image, "" where there is none. Raises CannotStart."""
    where = f'(pod: "{pod.name}_{pod.namespace}({pod.metadata.uid})", container: {container.name})'
    name, _, named_group = image.user.partition(":")
    user = _said(pod, container, lambda one: one.run_as_user)
    _check_non_root(pod, container, name, user, where)
    known = _Known(read("etc/passwd"), read("etc/group"))
    group = _said(pod, container, lambda one: one.run_as_group)
    if user is not None:
        named_group = ""
    else:
        user = known.user(name)
        if user is None:
            raise CannotStart("CreateContainerError", f"unable to find user {name}: no matching entries in passwd file {where}")
    if group is None and named_group:
        group = known.group(named_group)
        if group is None:
            raise CannotStart("CreateContainerError", f"unable to find group {named_group}: no matching entries in group file {where}")
    account = known.account(user)
    if group is None:
        group = account.group if account is not None else 0
    context = pod.spec.security_context or PodSecurityContext()
    theirs = () if account is None or context.supplemental_groups_policy == "Strict" else tuple(known.groups_of(account.name))
    own = () if context.fs_group is None else (context.fs_group,)
    asked = (*own, *context.supplemental_groups)
    groups = dict.fromkeys((group, *theirs, *asked))
    return Identity(user, group, tuple(groups), asked, (account.home if account is not None else "") or "/")


def possible(found: Identity, users: int, groups: int, container: str) -> Identity:
    """Who a container is where there are so many users and groups, from 0 on.

    Groups that only its image lists and that are not there are left out; for what is asked and cannot be had it raises CannotStart.
    """
    wanted = [("user", found.user, users)] + [("group", one, groups) for one in (found.group, *found.asked)]
    for kind, number, count in wanted:
        if number >= count:
            there = "only user and group 0" if count == 1 else f"only {kind}s 0 to {count - 1}"
            words = f"container {container} is to have {kind} {number}, and the cluster has {there}: `podwire doctor` says why"
            raise CannotStart("CreateContainerConfigError", words)
    return replace(found, groups=tuple(one for one in found.groups if one < groups))


def _check_non_root(pod: Pod, container: Container, name: str, user: int | None, where: str) -> None:
    if not _said(pod, container, lambda one: one.run_as_non_root):
        return
    words = ""
    if user is not None:
        words = "container's runAsUser breaks non-root policy" if user == 0 else ""
    elif name == "" or (name.isdigit() and int(name) == 0):
        words = "container has runAsNonRoot and image will run as root"
    elif not name.isdigit():
        words = f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
    if words:
        raise CannotStart("CreateContainerConfigError", f"{words} {where}")


def _said(pod: Pod, container: Container, field: Callable[[SecurityContext], T | None]) -> T | None:
    contexts = (one for one in (container.security_context, pod.spec.security_context) if one is not None)
    return next((value for value in map(field, contexts) if value is not None), None)


@dataclass(frozen=True)
class _Account:
    name: str
    user: int
    group: int
    home: str


class _Known:
    """The users and groups that an image names."""

    def __init__(self, passwd: str, groups: str) -> None:
        self._passwd, self._groups = passwd, groups

    def _accounts(self) -> Iterator[_Account]:
        for fields in _lines(self._passwd, 6):
            if fields[2].isdigit() and fields[3].isdigit():
                yield _Account(fields[0], int(fields[2]), int(fields[3]), fields[5])

    def account(self, user: int) -> _Account | None:
        return next((one for one in self._accounts() if one.user == user), None)

    def user(self, name: str) -> int | None:
        """The number of an image's user; None: there is none of this name."""
        if not name or name.isdigit():
            return int(name or 0)
        return next((one.user for one in self._accounts() if one.name == name), None)

    def group(self, name: str) -> int | None:
        if name.isdigit():
            return int(name)
        return next((int(fields[2]) for fields in _lines(self._groups, 3) if fields[0] == name and fields[2].isdigit()), None)

    def groups_of(self, user: str) -> Iterator[int]:
        for fields in _lines(self._groups, 4):
            if fields[2].isdigit() and user in fields[3].split(","):
                yield int(fields[2])


def _lines(text: str, least: int) -> Iterator[list[str]]:
    for line in text.splitlines():
        fields = line.strip().split(":")
        if len(fields) >= least:
            yield fields
