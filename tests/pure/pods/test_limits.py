"""What requests and limits come to in cgroups of either version, and what is said where there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podwire.linux import cgroups
from podwire.linux.cgroups import CgroupsRefused, Limits, Machine, Tree
from podwire.objects.core import Container, Pod, PodSpec, ResourceRequirements
from podwire.pods import limits

MI = 1 << 20


def container(**resources: Any) -> Container:
    return Container(name="c", resources=ResourceRequirements(**resources))


def pod(*containers: Container, **more: Any) -> Pod:
    return Pod(spec=PodSpec(containers=containers, **more))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, Limits(shares=2)),
        ({"requests": {"cpu": "250m", "memory": "1Gi"}}, Limits(shares=256)),
        ({"limits": {"cpu": "2"}}, Limits(cores=2, shares=2048)),
        ({"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "1m"}}, Limits(64 * MI, 1.5, 2)),
    ],
)
def test_a_container_is_limited_as_it_asks(asked: dict[str, Any], found: Limits) -> None:
    assert limits.of_container(container(**asked)) == found


def test_a_pod_is_limited_where_every_container_is() -> None:
    small = container(limits={"cpu": "500m", "memory": "64Mi"}, requests={"cpu": "100m"})
    assert limits.of_pod(pod(small, small), 100) == Limits(128 * MI, 1.0, 204, 100)
    assert limits.of_pod(pod(small, container(limits={"cpu": "1"}))) == Limits(None, 1.5, 102)
    assert limits.of_pod(pod(small, container())) == Limits(None, None, 102)
    first = container(limits={"cpu": "3", "memory": "32Mi"})
    assert limits.of_pod(pod(small, init_containers=(first,))) == Limits(64 * MI, 3.0, 102)
    whole = ResourceRequirements(limits={"memory": "1Gi"}, requests={"cpu": "1"})
    assert limits.of_pod(pod(small, resources=whole), 9) == Limits(1024 * MI, None, 1024, 9)


def test_settings_are_those_of_the_version() -> None:
    every = Limits(64 * MI, 0.5, 1024, 7)
    first = Tree(1, {"cpu": "/c", "memory": "/m", "pids": "/p"})
    assert dict(cgroups.settings(first, every)) == {
        "/c/cpu.shares": "1024",
        "/c/cpu.cfs_period_us": "100000",
        "/c/cpu.cfs_quota_us": "50000",
        "/m/memory.limit_in_bytes": str(64 * MI),
        "/p/pids.max": "7",
    }
    second = Tree(2, dict.fromkeys(cgroups.CONTROLLERS, "/g"))
    assert dict(cgroups.settings(second, every)) == {
        "/g/cpu.weight": "39",
        "/g/cpu.max": "50000 100000",
        "/g/memory.max": str(64 * MI),
        "/g/memory.oom.group": "1",
        "/g/pids.max": "7",
    }
    assert cgroups.settings(second, Limits()) == []
    assert dict(cgroups.settings(second, Limits(), anew=True)) == {"/g/cpu.max": "max 100000", "/g/memory.max": "max"}
    assert dict(cgroups.settings(first, Limits(), anew=True)) == {"/c/cpu.cfs_quota_us": "-1", "/m/memory.limit_in_bytes": "-1"}
    assert (cgroups.weight(2), cgroups.weight(262_144), cgroups.weight(1)) == (1, 10_000, 1)
    assert Tree.from_words(second.to_words()) == second
    assert Tree.from_words({}) is None


def test_kills_are_counted_in_either_version(tmp_path: Path) -> None:
    for version, file in ((1, "memory.oom_control"), (2, "memory.events")):
        (tmp_path / file).write_text("low 0\noom 3\noom_kill 2\n")
        assert cgroups.killed_for_memory(Tree(version, {"memory": str(tmp_path)})) == 2
    assert cgroups.killed_for_memory(Tree(2, {"memory": str(tmp_path / "absent")})) == 0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(CgroupsRefused, match="shows no cgroups for cpu, memory, pids"):
        cgroups.check(Machine())
    unified = Machine(unified=str(tmp_path), own={"": "/"})
    (tmp_path / "cgroup.controllers").write_text("cpu io\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    with pytest.raises(CgroupsRefused, match="has no controllers memory, pids"):
        cgroups.check(unified)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    cgroups.check(unified)


def test_mounts_and_places_are_read(tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(
        "30 25 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "32 25 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    (tmp_path / "cgroup").write_text("4:memory:/user\n3:cpu,cpuacct:/\n0::/user.slice/a:b\n")
    found = cgroups.read(str(tmp_path))
    assert found.mounts == {"cpu": "/sys/fs/cgroup/cpu,cpuacct", "memory": "/sys/fs/cgroup/memory"}
    assert found.unified == "/sys/fs/cgroup/unified"
    assert found.own == {"memory": "/user", "cpu": "/", "cpuacct": "/", "": "/user.slice/a:b"}
