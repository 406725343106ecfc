"""The command line under a hostile hand: names that lead elsewhere, closed descriptors, a full disk behind the output."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess

import pytest

from e2e.lab import Cluster, User, installation


@pytest.mark.parametrize("name", ["..", "", "a/b", "x" * 41])
def test_a_name_that_leads_elsewhere_is_refused(user: User, name: str) -> None:
    bystander = user.home / ".local/state/other/file"
    bystander.parent.mkdir(parents=True)
    bystander.write_text("mine")
    for words in (["down"], ["up", "--zones", "1"], ["status"], ["list"], ["doctor"], ["version"], ["kubeconfig"], ["logs"]):
        refused = user.podwire(words[0], "--name", name, *words[1:], status=None)
        if words[0] != "list":
            assert refused.returncode == 2, words
            assert f"--name: {name!r} is no cluster name" in refused.stderr
    assert bystander.read_text() == "mine"


def test_every_command_takes_a_name(cluster: Cluster) -> None:
    assert cluster.name in cluster.podwire("list").stdout
    assert "layout" in cluster.podwire("version").stdout
    assert "address clashes" in cluster.podwire("doctor").stdout
    assert 'there is no cluster "nowhere"; there are: ' in cluster.user.podwire("doctor", "--name", "nowhere", status=1).stderr


@pytest.mark.parametrize(("closed", "program"), [("<&-", "cat"), (">&-", "echo lost"), ("2>&-", "sh -c 'echo lost >&2'")])
def test_a_closed_descriptor_is_nothing_else(cluster: Cluster, closed: str, program: str) -> None:
    line = f"podwire exec --name {cluster.name} internet -- {program} {closed}"
    with cluster.user.start(["sh", "-c", line], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.communicate(timeout=20) == ("", "")
    assert running.returncode == 0


def test_output_that_nobody_takes_fails_in_words(cluster: Cluster) -> None:
    for words in ("--help", f"status --name {cluster.name}"):
        refused = cluster.user.run(["sh", "-c", f"{installation()}/.venv/bin/podwire {words} > /dev/full"], status=1)
        assert refused.stderr == "podwire: No space left on device\n"


def test_wrong_words_are_answered_with_the_right_ones(cluster: Cluster) -> None:
    for word in ("nowhere", "pods/default/x"):
        assert cluster.exec(word, "true", status=2).stderr == (
            f"podwire: there is no place {word!r}; there are: internet, vpc, control, node/NAME, pod/NAMESPACE/NAME\n"
        )
    few = cluster.user.run(["sh", "-c", f"ulimit -n 256; {installation()}/.venv/bin/podwire up --name few"], status=1)
    assert few.stderr.startswith("podwire: this user may open 256 files, at least 1024 are needed")
    assert "'nan' is no number of seconds" in cluster.user.podwire("up", "--wait", "nan", status=2).stderr
    assert "cannot read /nonexistent: No such file or directory\n" in cluster.user.podwire("up", "-f", "/nonexistent", status=2).stderr
    for process in cluster.status()["processes"]:
        cluster.podwire("logs", process["name"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\nb", "<stdin>:3: not YAML"),
        ("- 1", "<stdin>:1: expected an object with apiVersion and kind"),
        ("{apiVersion: v1, kind: List, items: [7]}", "<stdin>:1: expected an object with apiVersion and kind"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: 7}", "<stdin>:1: ConfigMap: expected metadata.name"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: x, annotations: [1]}}", "metadata.annotations: expected a mapping"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: {a: .nan}}", "nan is no number that JSON has"),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}, data: &a [*a]}",
            "<stdin>:1: document contains an alias of something that holds it",
        ),
        ("a: &a0 [1]\n" + "".join(f"b{n}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40)), "document contains excessive aliasing"),
        ("[" * 200_000, "<stdin>:1: document is nested too deeply"),
        ("{apiVersion: v1, kind: Unicorn, metadata: {name: x}}", '<stdin>:1: no matches for kind "Unicorn"'),
        ("{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: eighty}]}}", "spec.ports.port"),
        ("a: !!python/object:os.system x", "<stdin>:1: not YAML"),
        ("", "no objects found"),
    ],
)
def test_a_wrong_manifest_is_refused_in_words(cluster: Cluster, text: str, words: str) -> None:
    refused = cluster.podwire("apply", "-f", "-", stdin=text, status=1)
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_dates_and_bytes_are_the_texts_that_they_are(cluster: Cluster) -> None:
    cluster.podwire(
        "apply", "-f", "-", stdin="{apiVersion: v1, kind: ConfigMap, metadata: {name: texts}, data: {a: 2020-01-01, b: !!binary aGk=}}"
    )
    assert cluster.get("configmap", "texts")["data"] == {"a": "2020-01-01", "b": "aGk="}
    cluster.kubectl("delete", "configmap", "texts")


def test_progress_on_a_terminal_without_a_size(user: User) -> None:
    master, slave = pty.openpty()
    with user.start(["podwire", "up", "--name", "shown", "--zones", "1"], stderr=slave, stdout=subprocess.DEVNULL) as running:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):  # a terminal tells its end by EIO
            while piece := os.read(master, 65536):
                shown += piece
        assert running.wait(60) == 0
    os.close(master)
    assert b"waiting: " in shown
    assert shown.endswith(b"\r\x1b[K")
    user.podwire("down", "--name", "shown")
