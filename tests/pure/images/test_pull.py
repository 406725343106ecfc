"""Images from a registry on loopback, by skopeo."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from image_archives import ARCHITECTURE, Made, entry, layer, layout
from image_registry import a_registry
from podwire.images import pull as pulling
from podwire.images.credentials import documents
from podwire.images.documents import Platform
from podwire.images.errors import ImageRefused
from podwire.images.pull import pull
from podwire.images.reference import parse
from podwire.images.store import Store

MADE = layout(Made((layer(entry("word", b"pulled")),), {"Cmd": ["sh"]}), "")

needs_skopeo = pytest.mark.skipif(not os.environ.get("CI") and shutil.which("skopeo") is None, reason="skopeo is missing")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), machine=Platform(ARCHITECTURE, "linux"))


@needs_skopeo
def test_an_image_is_pulled_by_tag_and_by_digest(store: Store) -> None:
    with a_registry({"shop/web:1": MADE}) as (address, asked):
        assert pull(store, f"{address}/shop/web:1") == [f"{address}/shop/web:1"]
        digest = MADE.listed[0]["digest"]
        assert pull(store, f"{address}/shop/web@{digest}") == [f"{address}/shop/web@{digest}"]
        assert "/v2/shop/web/manifests/1" in asked
        found = store.catalogue().find(parse(f"{address}/shop/web@{digest}"))
        assert found is not None
        assert Path(store.layer(found.layers[0]), "word").read_bytes() == b"pulled"
        assert found == store.catalogue().find(parse(f"{address}/shop/web:1"))


@needs_skopeo
def test_what_a_registry_does_not_have_is_refused(store: Store) -> None:
    with a_registry({"shop/web:1": MADE}) as (address, _), pytest.raises(ImageRefused, match=r"web:2: .*manifest unknown"):
        pull(store, f"{address}/shop/web:2")
    with pytest.raises(ImageRefused, match=rf"pull {address}/shop/web:1: .*connection refused"):
        pull(store, f"{address}/shop/web:1")
    assert store.catalogue().images == {}


@needs_skopeo
def test_credentials_are_tried_one_after_the_other_and_are_on_no_disk(store: Store) -> None:
    with a_registry({"shop/web:1": MADE}, "me:word") as (address, _):
        wrong, right = ({address: {"username": "me", "password": word}} for word in ("no", "word"))
        seen: list[str] = []

        def look(process: subprocess.Popen[str]) -> None:
            seen.append(Path(f"/proc/{process.pid}/cmdline").read_text().replace("\0", " "))
            seen.extend(path.read_text() for path in Path(store.folder).rglob("*") if path.is_file())

        with pytest.raises(ImageRefused, match=r"shop/web:1: .*(unauthorized|authentication required|invalid status code)"):
            pull(store, f"{address}/shop/web:1", credentials=documents([wrong], parse(f"{address}/shop/web:1")))
        with pytest.raises(ImageRefused, match=r"shop/web:1: "):
            pull(store, f"{address}/shop/web:1")
        given = documents([wrong, right], parse(f"{address}/shop/web:1"))
        assert pull(store, f"{address}/shop/web:1", credentials=given, started=look) == [f"{address}/shop/web:1"]
        assert len(seen) > 1
        assert not any(word in text for text in seen for word in ("bWU6d29yZA==", "word"))
        assert os.listdir(f"{store.folder}/pulls") == []


@needs_skopeo
def test_what_a_killed_pull_has_left_is_removed_and_what_one_holds_is_not(store: Store) -> None:
    left = Path(store.folder, "pulls/left/image")
    left.mkdir(parents=True)
    with store.room() as (folder, _), a_registry({"shop/web:1": MADE}) as (address, _):
        assert pull(store, f"{address}/shop/web:1") == [f"{address}/shop/web:1"]
        assert os.listdir(f"{store.folder}/pulls") == [os.path.basename(folder)]


def test_without_skopeo_it_is_said_what_to_install(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert pulling.PROGRAM == "skopeo"
    with pytest.raises(ImageRefused, match=r"pull docker.io/library/web:latest: skopeo is not installed \(Debian: "):
        pull(store, "web")
