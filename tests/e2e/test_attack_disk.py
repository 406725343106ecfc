"""A disk that is full, before and while a cluster runs; folders that cannot be written; paths and names as long as may be."""

from __future__ import annotations

import re

import pytest

from e2e.lab import Cluster, User, installation, processes_of, traces_of

NAME = "n" * 40


@pytest.mark.parametrize("size", ["40k", "300k"])
def test_a_full_disk_is_named_and_nothing_is_left(user: User, size: str) -> None:
    state = user.home / "small"
    user.run(["mkdir", str(state)])
    script = f"""
        mount -t tmpfs -o size={size} none '{state}' && export XDG_STATE_HOME='{state}'
        podwire up --zones 1 --wait 100; echo "status $?"; find '{state}' -mindepth 1; podwire list
        podwire doctor | grep -F 'state directory'
    """
    done = user.run(["unshare", "-Urm", "sh", "-c", script])
    status, told = done.stdout.splitlines()
    assert status == "status 1"
    assert re.fullmatch(rf"failed +state directory +{state}/podwire: \d+ KiB are free", told), told
    assert f"cannot keep the cluster's state in {state}/podwire/podwire: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_of(user) == []
    assert not (user.home / ".kube").exists()


def test_a_disk_that_fills_up_stops_nothing_for_good(user: User) -> None:
    state = user.home / "small"
    user.run(["mkdir", str(state)])
    script = f"""
        mount -t tmpfs -o size=30m none '{state}' && export XDG_STATE_HOME='{state}' && podwire up --zones 1 >&2 || exit 1
        podwire doctor | grep -c 'warning.*KiB are free'
        dd if=/dev/zero of='{state}/fill' bs=4k 2>/dev/null
        podwire apply -f {installation()}/examples/page; echo "status $?"
        podwire kubectl get namespaces; echo "status $?"
        rm '{state}/fill'; podwire apply -f {installation()}/examples/page >&2; echo "status $?"
        dd if=/dev/zero of='{state}/fill' bs=4k 2>/dev/null
        podwire down >&2; echo "status $?"; find '{state}' -mindepth 1
    """
    done = user.run(["unshare", "-Urm", "sh", "-c", script])
    assert done.stdout.splitlines() == ["1", "status 1", "status 1", "status 0", "status 0", f"{state}/fill"], done.stderr
    assert "database or disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert processes_of(user) == []


def test_a_full_disk_is_told_by_nodes_and_by_status(user: User) -> None:
    state = user.home / "small"
    user.run(["mkdir", str(state)])
    script = f"""
        mount -t tmpfs -o size=30m none '{state}' && export XDG_STATE_HOME='{state}' && podwire up --zones 1 >&2 || exit 1
        told() {{
            for _ in $(seq 100); do podwire status > '{user.home}/told'; status=$?; grep "$1" '{user.home}/told' && break; done
            echo "status $status"
        }}
        wait() {{ podwire kubectl wait --for=condition="$1" node --all --timeout=60s | sed 's/.* //'; }}
        head -c $(( $(stat -f -c '%a * %S' '{state}') - 500000 )) /dev/zero > '{state}/fill'
        wait DiskPressure; told 'has DiskPressure'; grep 'has no room' '{user.home}/told'
        cat /dev/zero >> '{state}/fill' 2>/dev/null; told 'has no room'
        rm '{state}/fill'; wait DiskPressure=false; told '^cluster podwire is ready'; podwire down >&2
    """
    done = user.run(["unshare", "-Urm", "bash", "-c", script])
    room = f"  the state directory {state}/podwire/podwire has no room"
    lines = [re.sub("^  node .* has|, API.*", "", line) for line in done.stdout.splitlines()]
    full = ["met", " DiskPressure", "status 1", room, room, "status 1"]
    assert lines == [*full, "met", "cluster podwire is ready", "status 0"], (lines, done.stderr)
    assert "Traceback" not in done.stderr
    assert processes_of(user) == []


def test_a_kubeconfig_that_cannot_be_written_is_named(user: User) -> None:
    (user.home / "file").touch()
    before = traces_of(user)
    refused = user.podwire("up", "--zones", "1", "--kubeconfig", str(user.home / "file/config"), status=1)
    assert "file/config: File exists. Name another file (--kubeconfig), or none (--no-kubeconfig)." in refused.stderr
    assert traces_of(user) == before


def test_long_names_and_paths_with_spaces(user: User) -> None:
    home = user.home / "/".join(["a very long folder"] * 10)
    user.run(["mkdir", "-p", str(home)])
    far = Cluster(User(user.uid, home), NAME)
    far.podwire("up", "--zones", "1")
    assert far.exec("internet", "pwd", cwd=str(home)).stdout == f"{home}\n"
    far.podwire("dump", f"{home}/dump here")
    assert len(far.get("nodes")["items"]) == 1
    far.podwire("down")
    assert processes_of(far.user) == []
