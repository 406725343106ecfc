from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from podwire.client import kubeconfig
from podwire.client.kubeconfig import KubeconfigError
from podwire.cluster import credentials
from podwire.cluster.credentials import Identity
from podwire.cluster.paths import Paths


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A kubeconfig as the lab writes it, with certificates inline."""
    paths = Paths(str(tmp_path_factory.mktemp("pki")))
    identity = Identity("admin", "admin", ("system:masters",))
    credentials.ensure(paths, [identity], server_names=["127.0.0.1"], server="https://127.0.0.1:6443", cluster="test")
    tree: dict[str, Any] = json.loads(Path(paths.kubeconfig("admin")).read_text())
    return tree


def write(folder: Path, tree: Any) -> Path:
    file = folder / "config"
    file.write_text(yaml.safe_dump(tree))
    return file


def test_inline_certificates_and_files_are_the_same(pki: dict[str, Any], tmp_path: Path) -> None:
    inline = kubeconfig.load(write(tmp_path, pki))
    assert inline.server == "https://127.0.0.1:6443"
    assert inline.ssl is not None
    assert inline.authority.startswith(b"-----BEGIN CERTIFICATE")
    cluster, user = dict(pki["clusters"][0]["cluster"]), dict(pki["users"][0]["user"])
    for entry, names in ((cluster, ["certificate-authority"]), (user, ["client-certificate", "client-key"])):
        for name in names:
            (tmp_path / f"{name}.pem").write_bytes(base64.b64decode(entry.pop(f"{name}-data")))
            entry[name] = f"{name}.pem"
    files = pki | {"clusters": [pki["clusters"][0] | {"cluster": cluster}], "users": [pki["users"][0] | {"user": user}]}
    assert kubeconfig.load(write(tmp_path, files)).authority == inline.authority


def simple(user: dict[str, Any], **cluster: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [
            {"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "shop"}},
            {"name": "d", "context": {"cluster": "k"}},
            {"name": "e", "context": {"cluster": "missing"}},
        ],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:8001/"} | cluster}],
        "users": [{"name": "u", "user": user}],
    }


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("one\n")
    loaded = kubeconfig.load(write(tmp_path, simple({"tokenFile": "token"})))
    assert loaded.token is not None
    assert loaded.token.read() == "one"
    (tmp_path / "new").write_text("two\n")
    os.replace(tmp_path / "new", tmp_path / "token")
    assert loaded.token.read() == "two"


def test_contexts(tmp_path: Path) -> None:
    file = write(tmp_path, simple({"token": "t"}))
    chosen = kubeconfig.load(file)
    assert (chosen.server, chosen.namespace, chosen.ssl) == ("http://127.0.0.1:8001", "shop", None)
    assert chosen.token is not None
    assert "token" not in repr(chosen)
    other = kubeconfig.load(file, "d")
    assert (other.namespace, other.token) == ("default", None)


@pytest.mark.parametrize(
    ("tree", "context", "words"),
    [
        ([], None, "no mapping at the top"),
        ({}, None, "no current-context"),
        (simple({}), "nowhere", "no entry 'nowhere' in contexts"),
        (simple({}), "e", "no entry 'missing' in clusters"),
        (simple({"exec": {}}), None, "user asks for exec"),
        (simple({}, server="127.0.0.1:80"), None, "neither http:// nor https://"),
        (simple({}, server="https://h", **{"certificate-authority-data": "%%%"}), None, "certificate-authority-data is not base64"),
        (simple({}, server="https://h", **{"certificate-authority": "none.pem"}), None, "none.pem"),
        (simple({"client-key-data": "AAAA"}, server="https://h"), None, "without the other"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tree: Any, context: str | None, words: str, tmp_path: Path) -> None:
    file = write(tmp_path, tree)
    with pytest.raises(KubeconfigError) as error:
        kubeconfig.load(file, context)
    assert words in str(error.value)
    assert str(file) in str(error.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(KubeconfigError, match="/nowhere/config: No such file"):
        kubeconfig.load("/nowhere/config")


def test_in_a_pod(tmp_path: Path, pki: dict[str, Any]) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("shop")
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(pki["clusters"][0]["cluster"]["certificate-authority-data"]))
    variables = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    found = kubeconfig.in_cluster(tmp_path, variables)
    assert (found.server, found.namespace) == ("https://[fd00::1]:443", "shop")
    with pytest.raises(KubeconfigError, match="not in a Pod"):
        kubeconfig.in_cluster(tmp_path, {})
    (tmp_path / "token").unlink()
    with pytest.raises(KubeconfigError, match="token"):
        kubeconfig.in_cluster(tmp_path, variables)
