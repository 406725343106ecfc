"""The user's kubeconfig: exactly one context comes and goes."""

import os
import stat
from pathlib import Path

import pytest
import yaml

from podwire.cluster import kubeconfig

ENTRY = kubeconfig.Entry("podwire-x", "https://127.0.0.1:6443", b"ca", b"cert", b"key")
OTHER = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "prod", "cluster": {"server": "https://prod"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "me"}}],
    "current-context": "prod",
}


def test_a_file_of_its_own_comes_and_goes(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "config"
    assert kubeconfig.add(str(file), ENTRY) == ""
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert yaml.safe_load(file.read_text())["current-context"] == "podwire-x"
    assert kubeconfig.remove(str(file), "podwire-x")
    assert list(tmp_path.iterdir()) == []


def test_other_contexts_stay_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(OTHER))
    before = kubeconfig.add(str(file), ENTRY)
    assert before == "prod"
    kubeconfig.add(str(file), ENTRY)  # a second time changes nothing
    tree = yaml.safe_load(file.read_text())
    assert [item["name"] for item in tree["contexts"]] == ["prod", "podwire-x"]
    assert kubeconfig.remove(str(file), "podwire-x", before)
    assert {key: value for key, value in yaml.safe_load(file.read_text()).items() if value} == OTHER
    assert not kubeconfig.remove(str(file), "podwire-x", before)


def test_a_context_that_the_user_chose_since_stays_current(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(yaml.safe_dump(OTHER))
    kubeconfig.add(str(file), ENTRY)
    tree = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump(tree | {"current-context": "prod"}))
    kubeconfig.remove(str(file), "podwire-x", "gone")
    assert yaml.safe_load(file.read_text())["current-context"] == "prod"


def test_kubectls_lock_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubeconfig, "LOCK_TRIES", 2)
    monkeypatch.setattr(kubeconfig, "LOCK_PAUSE_S", 0)
    file = tmp_path / "config"
    (tmp_path / "config.lock").touch()
    with pytest.raises(kubeconfig.Unusable, match="is locked"):
        kubeconfig.add(str(file), ENTRY)
    assert not file.exists()


def test_the_lock_of_one_of_us_that_was_killed_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "config"
    (tmp_path / "config.lock").write_text("podwire\n")
    (tmp_path / "config.123.tmp").write_text("half")
    kubeconfig.add(str(file), ENTRY)
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_two_of_us_wait_for_each_other(tmp_path: Path) -> None:
    file = tmp_path / "config"
    with kubeconfig._locked(str(file)):
        assert not kubeconfig._left_behind(f"{file}.lock", str(file))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["- a\n", "clusters: 3\n", "a: [\n"])
def test_what_is_no_kubeconfig_is_refused_and_left(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(kubeconfig.Unusable, match="config"):
        kubeconfig.add(str(file), ENTRY)
    assert file.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["config"]


def test_the_file_is_chosen_as_kubectl_chooses_it(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    several = os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    assert kubeconfig.target("~/x", {"KUBECONFIG": several}) == os.path.expanduser("~/x")
    assert kubeconfig.target(None, {"KUBECONFIG": several}) == str(tmp_path / "b")
    assert kubeconfig.target(None, {"KUBECONFIG": str(tmp_path / "a")}) == str(tmp_path / "a")
    assert kubeconfig.target(None, {"HOME": "/h"}) == "/h/.kube/config"
