"""Where volumes of the machine may lie: below the folders that the cluster names, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from podwire.client.api import Client
from podwire.client.kubeconfig import Configuration
from podwire.objects.core import Pod
from podwire.objects.volumes import HostPathVolumeSource, Volume
from podwire.pods.environment import Unavailable
from podwire.pods.volumes.places import Places


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    (folder / "there").mkdir(parents=True)
    (folder / "file").write_text("")
    (folder / "out").symlink_to("/etc")
    (tmp_path / "state").mkdir()
    (tmp_path / "beside").mkdir()
    return folder


async def place(path: str, kind: str, *folders: Path, state: Path) -> str:
    volume = Volume(name="h", host_path=HostPathVolumeSource(path=path, type=kind))
    async with Client(Configuration("https://127.0.0.1:1")) as client:
        found = await Places(client, str(state), [str(folder) for folder in folders]).of(Pod(), volume)
    assert found is not None
    assert not found.read_only
    return found.path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("there", ""),
        ("there", "Directory"),
        ("new/deep", "DirectoryOrCreate"),
        ("file", "File"),
        ("made", "FileOrCreate"),
        (".", "Directory"),
    ],
)
async def test_what_lies_below_a_folder_of_the_cluster_is_given(allowed: Path, name: str, kind: str) -> None:
    assert await place(f"{allowed}/{name}", kind, allowed, state=allowed.parent / "state") == str((allowed / name).resolve())
    assert (allowed / name).exists()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("../beside", "", "lies below no folder that the cluster may use"),
        ("out", "Directory", "lies below no folder that the cluster may use"),
        ("out/passwd", "File", "lies below no folder that the cluster may use"),
        ("../sharedness", "DirectoryOrCreate", "lies below no folder that the cluster may use"),
        ("gone", "Directory", "No such file or directory"),
        ("file", "Directory", "is not a directory"),
        ("there", "File", "is not a file"),
    ],
)
async def test_what_is_refused(allowed: Path, name: str, kind: str, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        await place(f"{allowed}/{name}", kind, allowed, state=allowed.parent / "state")
    assert not (allowed.parent / "sharedness").exists()


async def test_without_a_list_and_around_the_state_there_is_nothing(allowed: Path) -> None:
    with pytest.raises(Unavailable, match=r"spec\.hostPaths: none"):
        await place(str(allowed), "", state=allowed.parent / "state")
    for path in (allowed.parent, allowed.parent / "state"):
        with pytest.raises(Unavailable, match="would show the state of the cluster"):
            await place(str(path), "", allowed.parent, state=allowed.parent / "state")


@pytest.mark.parametrize(
    ("name", "folder", "shown"), [("", ".", False), ("work", ".", True), (".ssh", ".", False), (".ssh/keys", ".ssh/keys", True)]
)
async def test_what_is_hidden_from_containers_is_no_volume_either(tmp_path: Path, name: str, folder: str, shown: bool) -> None:
    home = tmp_path / "home"
    for each in ("work", ".ssh/keys"):
        (home / each).mkdir(parents=True)
    volume = Volume(name="h", host_path=HostPathVolumeSource(path=str(home / name), type="Directory"))
    async with Client(Configuration("https://127.0.0.1:1")) as client:
        places = Places(client, str(tmp_path / "state"), [str(home / folder)], [str(home / ".ssh"), str(home / ".aws")])
        if shown:
            assert await places.of(Pod(), volume) is not None
        else:
            with pytest.raises(Unavailable, match="which is hidden from containers"):
                await places.of(Pod(), volume)
