"""up, down, down --keep, list, and their messages, on a lab whose agents need not be ready."""

import json
import os
import socket
from pathlib import Path

import pytest

from lab import Lab, eventually, processes


def test_up_and_down_leave_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    assert '"podwire" has started' in lab.run("up", "--wait", "0").stdout
    assert lab.root.stat().st_mode & 0o777 == 0o700
    assert json.loads(lab.run("list", "-o", "json").stdout)[0]["state"] == "running"
    assert "podwire-podwire" in (tmp_path / "config").read_text()
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o600
    assert '"podwire" is deleted' in lab.run("down").stdout
    lab.nothing_is_left()


def test_a_second_up_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--wait", "0")
    before = lab.process("init")
    second = lab.run("up", "--wait", "0", status=1)
    assert 'cluster "podwire" is already running' in second.stderr
    assert lab.process("init") == before
    lab.run("down")
    lab.nothing_is_left()


def test_down_of_an_unknown_cluster_names_it(tmp_path: Path) -> None:
    assert 'no cluster "nosuch"' in Lab(tmp_path, "nosuch").run("down", status=1).stderr
    assert 'no cluster "nosuch"' in Lab(tmp_path, "nosuch").run("status", status=1).stderr
    assert list(tmp_path.iterdir()) == []


def test_clusters_live_side_by_side(tmp_path: Path) -> None:
    one, two = Lab(tmp_path, "one"), Lab(tmp_path, "two")
    one.run("up", "--wait", "0", "--zones", "1")
    two.run("up", "--wait", "0", "--zones", "1")
    assert [found["name"] for found in json.loads(one.run("list", "-o", "json").stdout)] == ["one", "two"]
    one.run("down")
    assert "podwire-one" not in (tmp_path / "config").read_text()
    assert two.process("supervisor")["pid"]
    two.run("down")
    two.nothing_is_left()


def test_a_kept_cluster_comes_back_as_it_was(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--wait", "0", "--zones", "2")
    before = lab.status()["apiServer"]
    authority = (lab.root / "pki/ca.crt").read_bytes()
    lab.run("down", "--keep")
    eventually(lambda: not processes(), "the end of all processes")
    assert not (tmp_path / "config").exists()
    assert json.loads(lab.run("list", "-o", "json").stdout)[0]["state"] == "kept"
    assert "not running" in lab.run("status", status=1).stderr
    assert "not running" in lab.run("down", "--keep", status=1).stderr
    refused = lab.run("up", "--zones", "3", status=1)
    assert "another specification" in refused.stderr
    lab.run("up", "--wait", "0")
    assert lab.status()["apiServer"] == before
    assert (lab.root / "pki/ca.crt").read_bytes() == authority
    assert len([process for process in lab.status()["processes"] if process["name"].startswith("node/")]) == 2
    lab.run("down")
    lab.nothing_is_left()


def test_a_port_in_use_is_named_with_its_process(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    # The test's own namespace has a loopback that is down.
    from podwire.linux.network import Network
    from podwire.wire.rtnetlink import Link, change

    with Network() as network:
        network.apply([change(Link("lo", up=True))])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = lab.run("up", "--api-port", str(port), status=1)
        assert f"port {port} of 127.0.0.1 (tcp) is in use by process {os.getpid()}" in failed.stderr
    lab.nothing_is_left()


def test_a_home_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    failed = Lab(tmp_path / "file").run("up", status=1)
    assert "Set XDG_STATE_HOME (or HOME) to a folder that you can write" in failed.stderr


def test_a_wrong_specification_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    spec = tmp_path / "cluster.yaml"
    spec.write_text("apiVersion: podwire.dev/v1alpha1\nkind: Cluster\nspec:\n  ranges:\n    pods: 10.128.0.0/14\n")
    failed = Lab(home).run("up", "-f", str(spec), status=2)
    assert "spec.ranges.pods" in failed.stderr
    assert list(home.iterdir()) == []


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--wait", "0", "--zones", "1")
    lab.run("down", "--keep")
    tree = json.loads((lab.root / "state.json").read_text())
    (lab.root / "state.json").write_text(json.dumps({**tree, "layout": 99}))
    assert "has layout 99" in lab.run("up", status=1).stderr
    lab.run("down")
    lab.nothing_is_left()


def test_namespaces_that_are_refused_are_explained(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    limit = Path("/proc/sys/user/max_net_namespaces")
    before = limit.read_text()
    limit.write_text("0")
    try:
        failed = lab.run("up", status=1)
    finally:
        limit.write_text(before)
    assert "user.max_net_namespaces is 0" in failed.stderr
    lab.nothing_is_left()


def test_a_lab_that_the_kernel_refuses_is_explained_and_taken_back(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    limit = Path("/proc/sys/user/max_net_namespaces")
    before = limit.read_text()
    limit.write_text("3")
    try:
        failed = lab.run("up", status=1)
    finally:
        limit.write_text(before)
    assert "the lab cannot be built: create a network namespace" in failed.stderr
    assert "max_net_namespaces" in failed.stderr
    lab.nothing_is_left()


@pytest.mark.parametrize("depth", [120])
def test_a_deep_state_directory_does_no_harm(tmp_path: Path, depth: int) -> None:
    deep = tmp_path / ("d" * depth)
    deep.mkdir()
    lab = Lab(deep)
    lab.run("up", "--wait", "0", "--zones", "1")
    assert lab.run("exec", "internet", "--", "true").returncode == 0
    lab.run("down")
    lab.nothing_is_left()
