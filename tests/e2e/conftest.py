"""Users and clusters for end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.lab import USERS, Cluster, User, a_cluster, a_user


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = any(mark.args[0] == "uid" for mark in metafunc.definition.iter_markers("parametrize"))
    if "uid" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("uid", USERS, ids=lambda uid: "root" if uid == 0 else f"uid-{uid}", scope="session")


@pytest.fixture
def user(uid: int) -> Iterator[User]:
    """Somebody with an empty home."""
    with a_user(uid) as somebody:
        yield somebody


@pytest.fixture(scope="session")
def cluster(uid: int) -> Iterator[Cluster]:
    """A running cluster of three nodes in three zones, shared by the tests that only add to it in namespaces of their own."""
    with a_user(uid) as somebody, a_cluster(somebody, "shared") as running:
        yield running
