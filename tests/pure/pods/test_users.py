"""Who a container is, by its own words, its Pod's, and its image's."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.images.documents import Execution
from podwire.objects.core import Container, ContainerSecurityContext, Pod, PodSecurityContext, PodSpec
from podwire.pods.admission import CannotStart
from podwire.pods.oci import users

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\nbroken:x:many\n",
    "etc/group": "root:x:0:root\nstaff:x:50:root,web\nteam:x:1500:web\n",
}


def identity(user: str = "", own: dict[str, Any] | None = None, **pod: Any) -> users.Identity:
    context = PodSecurityContext(**pod) if pod else None
    container = Container(name="c", security_context=ContainerSecurityContext(**own) if own else None)
    return users.identity(
        Pod(spec=PodSpec(containers=(container,), security_context=context)), container, Execution(user=user), FILES.__getitem__
    )


@pytest.mark.parametrize(
    ("user", "own", "pod", "found"),
    [
        ("", None, {}, (0, 0, 0, 50)),
        ("web", None, {}, (1000, 1001, 1001, 50, 1500)),
        ("1000", None, {}, (1000, 1001, 1001, 50, 1500)),
        ("web:staff", None, {}, (1000, 50, 50, 1500)),
        ("7:8", None, {}, (7, 8, 8)),
        ("web", {"run_as_user": 9}, {}, (9, 0, 0)),
        ("7:8", {"run_as_user": 1000}, {}, (1000, 1001, 1001, 50, 1500)),
        ("", {"run_as_user": 9}, {"run_as_user": 3, "run_as_group": 4}, (9, 4, 4)),
        ("", None, {"fs_group": 5, "supplemental_groups": (6, 5)}, (0, 0, 0, 50, 5, 6)),
        ("web", None, {"supplemental_groups": (6,), "supplemental_groups_policy": "Strict"}, (1000, 1001, 1001, 6)),
    ],
)
def test_who_a_container_is(user: str, own: dict[str, Any] | None, pod: dict[str, Any], found: tuple[int, ...]) -> None:
    assert identity(user, own, **pod).numbers == found


def test_groups_that_only_the_image_lists_may_be_missing_and_others_not() -> None:
    assert users.possible(identity(), 1, 1, "c").numbers == (0, 0, 0)
    assert users.possible(identity("web"), 65_536, 1200, "c").numbers == (1000, 1001, 1001, 50)
    for wanted in (identity("web"), identity("", None, fs_group=5), identity("", None, supplemental_groups=(5,))):
        with pytest.raises(CannotStart, match="and the cluster has only user and group 0"):
            users.possible(wanted, 1, 1, "c")


def test_homes_and_names() -> None:
    assert (identity("web").home, identity("9").home) == ("/home/web", "/")
    with pytest.raises(CannotStart, match="unable to find user absent"):
        identity("absent")
    with pytest.raises(CannotStart, match="unable to find group absent"):
        identity("web:absent")
