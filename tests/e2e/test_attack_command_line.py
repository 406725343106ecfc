"""The command line under a hostile hand: names that lead elsewhere, closed descriptors, a full disk behind the output."""

from __future__ import annotations

import subprocess

import pytest

from e2e.lab import Cluster, User, installation


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../x", "Bad_Name", "x" * 41])
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
    assert "there is no cluster 'nowhere'" in cluster.user.podwire("doctor", "--name", "nowhere", status=1).stderr


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
