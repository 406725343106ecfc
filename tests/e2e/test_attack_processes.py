"""Each process of a cluster killed: the supervisor tells of itself, and the two that cannot come back take everything with them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

from e2e.lab import Cluster, User, processes_of, until


def _process(cluster: Cluster, name: str) -> dict[str, object]:
    rows = [row for row in cluster.status().get("processes", ()) if row["name"] == name]
    return rows[0] if rows else {}


def test_the_supervisor_counts_its_own_restarts_and_keeps_those_of_others(user: User) -> None:
    cluster = Cluster(user, "counted")
    cluster.podwire("up", "--zones", "1")
    for name in ("publish", "supervisor"):
        before = _process(cluster, name)
        os.kill(int(str(before["pid"])), signal.SIGKILL)
        row = until(lambda name=name: (one := _process_or_none(cluster, name)) and one["restarts"] and one["pid"] and one, f"{name} again")
        assert row["restarts"] == 1
        assert row["lastError"] == "killed by SIGKILL"
    assert _process(cluster, "publish")["restarts"] == 1
    cluster.podwire("down")


def _process_or_none(cluster: Cluster, name: str) -> dict[str, object] | None:
    asked = cluster.podwire("status", "-o", "json", status=None)
    return _process(cluster, name) if asked.stdout else None


def test_without_door_or_init_all_is_over_and_up_brings_it_back(user: User) -> None:
    cluster = Cluster(user, "pulled")
    cluster.podwire("up", "--zones", "1")
    for name in ("door", "init"):
        os.kill(int(str(_process(cluster, name)["pid"])), signal.SIGKILL)
        until(lambda: processes_of(user) == [], "everything gone")
        assert "kept" in cluster.podwire("list").stdout
        for words in (["status"], ["kubectl", "get", "nodes"]):
            assert "is not running; start it with: podwire up --name pulled" in cluster.podwire(*words, status=1).stderr, words
        cluster.podwire("up")
    cluster.podwire("down")
    assert processes_of(user) == []


def test_a_node_that_lost_its_first_process_says_so_and_comes_back(user: User) -> None:
    cluster = Cluster(user, "rebooted")
    cluster.podwire("up", "--zones", "1")
    name = cluster.status()["nodes"][0]["name"]
    for process in processes_of(user):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{process}/cmdline", encoding="utf-8") as line:
            if line.read().startswith("podwire-init init/"):
                os.kill(process, signal.SIGKILL)
    for process in (f"node/{name}", f"standins/{name}"):
        row = until(
            lambda process=process: (one := _process(cluster, process))["restarts"] and one["state"] == "ready" and one, f"{process} again"
        )
        # The kernel may still be ending the node when a process is started again; that it waits for its node is no end of it.
        assert "SIGKILL" in str(row["lastError"]) or "could not be started" in str(row["lastError"])
    cluster.podwire("down")


def test_a_cluster_whose_state_was_deleted_or_overwritten(user: User) -> None:
    cluster = Cluster(user, "lost")
    cluster.podwire("up", "--zones", "1")
    shutil.rmtree(user.home / ".local/state/podwire/lost", ignore_errors=True)
    until(lambda: processes_of(user) == [], "everything gone")
    cluster.podwire("up", "--zones", "1")
    cluster.podwire("down", "--keep")
    state = user.home / ".local/state/podwire/lost"
    (state / "api.sqlite-wal").unlink()
    (state / "api.sqlite").write_bytes(b"x" * 8192)
    assert "api.sqlite is not a database of this program" in cluster.podwire("up", "--wait", "5", status=1).stderr
    cluster.podwire("down", "--keep")
    (state / "state.json").write_text('{"layout": 0')
    assert cluster.podwire("list").stdout.split()[-3:] == ["lost", "unreadable", "0"]
    assert "state.json cannot be read" in cluster.podwire("up", status=1).stderr
    cluster.podwire("down")
    assert "no clusters" in cluster.podwire("list").stderr
