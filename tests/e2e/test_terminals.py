"""Terminals in containers of every kind, with stock kubectl: job control, names, sizes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.lab import Cluster, a_cluster, a_user, until
from e2e.screen import CTRL_C, CTRL_D, CTRL_Z, Screen, a_screen
from image_archives import busybox, layout

IMAGE = "shop/shell:1"


@pytest.fixture(scope="module")
def lab(uid: int) -> Iterator[Cluster]:
    with a_user(uid) as user:
        user.podwire("image", "load", str(layout(busybox(), IMAGE).write_tar(user.home / "shell.tar")))
        with a_cluster(user, "screens", "--zones", "1") as cluster:
            sleeping = [
                {"name": "image", "image": IMAGE, "command": ["sleep", "100000"]},
                {"name": "machine", "image": "podwire.dev/machine", "command": ["sleep", "100000"]},
                {"name": "stand-in", "image": "example.com/server", "ports": [{"containerPort": 8080}]},
            ]
            pod = {"metadata": {"name": "kinds"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": sleeping}}
            cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
            cluster.ready()
            yield cluster


def kubectl(cluster: Cluster, *words: str) -> list[str]:
    return ["kubectl", "--context", f"podwire-{cluster.name}", *words]


def _a_session(screen: Screen) -> None:
    """A shell on a terminal that it controls."""
    # Who attaches says the size after the shell has begun.
    screen.type("PS1='now''> '; tty; while test \"$(stty size)\" != '30 90'; do sleep 0.1; done; stty size\n")
    screen.see(r"/dev/pts/\d+\r\n")
    screen.see(r"\b30 90\r\n")
    screen.see("now> ")
    screen.resize(101, 33)
    screen.type("while test \"$(stty size)\" != '33 101'; do sleep 0.1; done; echo follow''ed\n")
    screen.see("followed\r\n")
    screen.see("now> ")
    screen.type("sh -c 'echo beg\"\"un; exec sleep 1000'\n")
    screen.see("begun")
    screen.type(CTRL_C)
    screen.see("now> ")
    screen.type("sh -c 'echo beg\"\"un; exec sleep 1001'\n")
    screen.see("begun")
    screen.type(CTRL_Z)
    screen.see("(?i)stopped")
    screen.see("now> ")
    screen.type("jobs; bg; jobs; kill %1; wait; echo do''ne\n")
    screen.see("(?i)running")
    screen.see("done\r\n")
    screen.see("now> ")


@pytest.mark.parametrize("kind", ["image", "machine", "stand-in"])
def test_exec_has_a_terminal_with_job_control(lab: Cluster, kind: str) -> None:
    with a_screen(lab.user, kubectl(lab, "exec", "-it", "kinds", "-c", kind, "--", "sh", "-i")) as screen:
        _a_session(screen)
        screen.type("exit 5\n")
        assert screen.end() == 5


@pytest.mark.parametrize("image", [IMAGE, "podwire.dev/machine"])
def test_run_and_attach_have_a_terminal_with_job_control(lab: Cluster, image: str) -> None:
    name = "screen-" + ("image" if image == IMAGE else "machine")
    with a_screen(lab.user, kubectl(lab, "run", name, "-it", "--restart=Never", f"--image={image}", "--", "sh", "-i")) as screen:
        # What kubectl says until it is attached may be all there is to see: the shell's first words may have been said before.
        screen.type("\n")
        screen.see(r"[#$] ")
        _a_session(screen)
        screen.type("trap 'echo res''ized' WINCH; echo re''ady\n")
        screen.see("ready\r\n")
    # That one is hung up on, and the shell goes on: whoever attaches finds it.
    with a_screen(lab.user, kubectl(lab, "attach", "-it", name), columns=77, rows=22) as screen:
        screen.type("while test \"$(stty size)\" != '22 77'; do sleep 0.1; done; stty size; echo $TERM\n")
        screen.see("22 77\r\n")
        screen.see("xterm\r\n")
        # It starts no program but stty: a shell that is about to start one can miss a Ctrl-C.
        screen.type('sh -c \'trap "stty size; echo signal""led" WINCH; echo be""gun; while :; do :; done\'\n')
        screen.see("begun\r\n")
        screen.resize(78, 23)
        screen.see("23 78\r\nsignalled\r\n")
        screen.type(CTRL_C)
        screen.see("now> ")
        screen.type("true\n")
        screen.see("now> ")
        screen.type(CTRL_D)
        assert screen.end() == 0
    until(lambda: lab.get("pod", name)["status"]["phase"] == "Succeeded", "the shell has ended")
    said = lab.kubectl("logs", name).stdout
    assert "30 90" in said
    assert "22 77" in said
    lab.kubectl("delete", "pod", name)
