"""Ephemeral containers from images: kubectl debug in Pods of every kind, with a target and without."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.lab import Cluster, a_cluster, a_user, until
from e2e.screen import CTRL_C, a_screen
from e2e.test_terminals import kubectl
from image_archives import busybox, entry, layout

TOOL, SHOP = "shop/debugger:1", "shop/server:1"


@pytest.fixture(scope="module")
def lab(uid: int) -> Iterator[Cluster]:
    with a_user(uid) as user:
        for name, words in ((TOOL, b"the debugger\n"), (SHOP, b"the server\n")):
            made = layout(busybox(entry("which", words)), name)
            user.podwire("image", "load", str(made.write_tar(user.home / "image.tar")))
        with a_cluster(user, "looking", "--zones", "1") as cluster:
            for name, image in (("image", SHOP), ("machine", "podwire.dev/machine"), ("stood", "example.com/server")):
                container = {"name": "main", "image": image, "command": ["sleep", "424242"], "ports": [{"containerPort": 8080}]}
                spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
                body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
                cluster.kubectl("create", "-f", "-", stdin=json.dumps(body))
            cluster.ready()
            yield cluster


@pytest.mark.parametrize("pod", ["image", "machine"])
def test_a_debugger_sees_the_processes_of_its_target(lab: Cluster, pod: str) -> None:
    words = ["debug", "-it", pod, f"--image={TOOL}", "--target=main", "-c", "look", "--", "sh", "-i"]
    with a_screen(lab.user, kubectl(lab, *words)) as screen:
        screen.type("\n")
        screen.see(r"[#$] ")
        screen.type("PS1='now''> '; cat /which; hostname; tty\n")
        screen.see("the debugger\r\n")
        screen.see(f"{pod}\r\n")
        screen.see(r"/dev/pts/\d+\r\n")
        screen.type("ps; echo lis''ted\n")
        screen.see("sleep 424242")
        screen.see("listed\r\n")
        screen.type("sh -c 'echo beg\"\"un; exec sleep 1000'\n")
        screen.see("begun")
        screen.type(CTRL_C)
        screen.see("now> ")
        screen.type("exit 4\n")
        screen.end()
    until(lambda: "terminated" in ephemeral(lab, pod)["look"]["state"], "it has ended")
    found = ephemeral(lab, pod)["look"]
    assert found["state"]["terminated"]["exitCode"] == 4
    assert found["imageID"].startswith("sha256:")
    status = lab.get("pod", pod)["status"]
    assert status["containerStatuses"][0]["restartCount"] == 0
    # Without the target it sees its own processes alone.
    lab.kubectl("debug", pod, f"--image={TOOL}", "-c", "alone", "--", "sh", "-c", "ps; cat /which; sleep 424243")
    said = until(lambda: "the debugger" in lab.kubectl("logs", pod, "-c", "alone", status=None).stdout and logs(lab, pod), "it has looked")
    assert "424242" not in said


def logs(cluster: Cluster, pod: str) -> str:
    return cluster.kubectl("logs", pod, "-c", "alone").stdout


def ephemeral(cluster: Cluster, pod: str) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in cluster.get("pod", pod)["status"].get("ephemeralContainerStatuses", [])}


def test_a_debugger_is_run_from_its_image_beside_a_stand_in(lab: Cluster) -> None:
    debug = ["debug", "-i", "stood", f"--image={TOOL}", "-c", "look", "--quiet"]
    done = lab.kubectl(*debug, "--", "sh", "-c", "cat /which; hostname", status=None)
    told = done.stdout + lab.kubectl("logs", "stood", "-c", "look").stdout
    assert "the debugger\nstood\n" in told, (done.stdout, done.stderr)
    assert (
        json.loads(lab.kubectl("exec", "stood", "-c", "main", "--", "wget", "-qO-", "http://127.0.0.1:8080/").stdout)["container"] == "main"
    )
    lab.kubectl("delete", "pod", "stood")
    until(lambda: lab.kubectl("get", "pod", "stood", status=None).returncode == 1, "it goes")
