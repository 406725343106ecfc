"""What the store takes in, in every form that archives have, and what is left of what is taken away."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from image_archives import ARCHITECTURE, OCI, Layout, Made, digest, docker_archive, entry, folder, layer, layout, symlink
from podwire.images.documents import Platform
from podwire.images.errors import ImageRefused
from podwire.images.reference import parse
from podwire.images.store import Image, Store
from podwire.linux import ids

MACHINE = Platform(ARCHITECTURE, "linux")
LOWER = layer(folder("etc"), entry("etc/word", b"lower"), entry("etc/gone", b"x"), folder("var"), entry("var/old", b"old"))
UPPER = layer(
    entry("etc/word", b"upper", mode=0o4755),
    entry("etc/.wh.gone"),
    entry("var/.wh..wh..opq"),
    entry("var/new", b"new"),
    symlink("lib", "usr/lib"),
)
MADE = Made((LOWER, UPPER), {"Entrypoint": ["/bin/web"], "Cmd": ["--port", "80"], "Env": ["A=1"], "User": "web", "WorkingDir": "/srv"})
FULL = "docker.io/library/web:latest"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"), machine=MACHINE)


def contents(store: Store) -> set[str]:
    """What lies in the store beside its catalogue."""
    return {f"{kind}/{name}" for kind in ("layers", "new", "used") for name in os.listdir(f"{store.folder}/{kind}")}


def image(store: Store, name: str) -> Image:
    found = store.catalogue().find(parse(name))
    assert found is not None
    return found


def _gzipped(path: Path) -> Path:
    path.write_bytes(gzip.compress(path.read_bytes()))
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    "OCI folder": lambda place: layout(MADE, "web").write(place / "oci"),
    "OCI archive": lambda place: layout(MADE, "web").write_tar(place / "oci.tar"),
    "OCI archive, zstd": lambda place: layout(Made(MADE.layers, MADE.execution, compression="zstd"), "web").write_tar(place / "oci.tar"),
    "OCI archive, plain": lambda place: layout(Made(MADE.layers, MADE.execution, compression=""), "web").write_tar(place / "oci.tar"),
    "docker save": lambda place: docker_archive(place / "docker.tar", MADE, "web:latest"),
    "docker save, gzip": lambda place: _gzipped(docker_archive(place / "docker.tar", MADE, "web:latest")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_archive_gives_the_same_image(store: Store, tmp_path: Path, form: str) -> None:
    assert store.load(str(FORMS[form](tmp_path))) == [FULL]
    found = image(store, "web")
    assert found.execution.entrypoint == ("/bin/web",)
    assert (found.execution.user, found.execution.working_dir) == ("web", "/srv")
    lower, upper = (Path(store.layer(diff_id)) for diff_id in found.layers)
    assert (lower / "etc/word").read_bytes() == b"lower"
    assert (upper / "etc/word").read_bytes() == b"upper"
    # Where there is no other user, set-user-ID means nothing.
    assert stat.S_IMODE((upper / "etc/word").stat().st_mode) == (0o755 if ids.lent() is None else 0o4755)
    assert stat.S_ISCHR((upper / "etc/gone").lstat().st_mode)
    assert os.getxattr(upper / "var", "user.overlay.opaque") == b"y"
    assert os.readlink(upper / "lib") == "usr/lib"
    assert (lower / "etc/word").stat().st_mtime == 1_700_000_000
    assert found.size == sum(len(text) for text in (b"lower", b"x", b"old", b"upper", b"new"))
    assert stat.S_IMODE(os.stat(store.folder).st_mode) == 0o700


def test_an_index_gives_the_build_for_this_machine(store: Store, tmp_path: Path) -> None:
    made = Layout()
    other = made.manifest(Made((LOWER,), {}, architecture="s390x"), platform={"os": "linux", "architecture": "s390x"})
    attestation = made.manifest(Made((UPPER,), {}, architecture="unknown"), platform={"os": "unknown", "architecture": "unknown"})
    own = made.manifest(MADE, platform={"os": "linux", "architecture": ARCHITECTURE})
    index = made.document({"schemaVersion": 2, "manifests": [other, attestation, own]}, f"{OCI}.index.v1+json")
    made.list(index, "web")
    store.load(str(made.write_tar(tmp_path / "oci.tar")))
    found = image(store, "web")
    assert len(found.layers) == 2
    assert image(store, f"web@{own['digest']}") == image(store, f"docker.io/library/web@{index['digest']}") == found
    assert store.catalogue().find(parse(f"other@{own['digest']}")) is None


def test_layers_are_unpacked_once(store: Store, tmp_path: Path) -> None:
    store.load(str(docker_archive(tmp_path / "a.tar", Made((LOWER, UPPER, LOWER), {}), "a", "shop/b:2")))
    assert len(os.listdir(f"{store.folder}/layers")) == 2
    inode = os.stat(store.layer(image(store, "a").layers[0])).st_ino
    store.load(str(layout(Made((LOWER,), {}), "c").write(tmp_path / "c")))
    assert os.stat(store.layer(image(store, "c").layers[0])).st_ino == inode
    store.remove("a")
    store.remove("shop/b:2")
    assert len(os.listdir(f"{store.folder}/layers")) == 1
    store.remove("c")
    assert contents(store) == set()


def test_names(store: Store, tmp_path: Path) -> None:
    archive = str(layout(MADE, "").write(tmp_path / "oci"))
    with pytest.raises(ImageRefused, match=r"does not say what its image sha256:.* is called: say it with --name"):
        store.load(archive)
    assert store.load(archive, "web:1") == ["docker.io/library/web:1"]
    assert store.tag("web:1", "gcr.io/shop/web") == "gcr.io/shop/web:latest"
    with pytest.raises(ImageRefused, match="there is no image web"):
        store.tag("web", "web:2")
    found = image(store, "gcr.io/shop/web")
    assert store.catalogue().names_of(found.id) == ["docker.io/library/web:1", "gcr.io/shop/web:latest"]
    store.remove(found.id.removeprefix("sha256:")[:12])
    assert (store.catalogue().images, contents(store)) == ({}, set())


def test_a_name_moves_to_the_image_that_is_loaded_last(store: Store, tmp_path: Path) -> None:
    store.load(str(layout(MADE, "web").write(tmp_path / "1")))
    store.load(str(layout(Made((LOWER,), {}), "web").write(tmp_path / "2")))
    assert len(image(store, "web").layers) == 1
    assert len(os.listdir(f"{store.folder}/layers")) == 1


def test_an_image_that_is_used_stays(store: Store, tmp_path: Path) -> None:
    store.load(str(layout(MADE, "web").write(tmp_path / "oci")))
    used = store.use(image(store, "web").id)
    assert used is not None
    with pytest.raises(ImageRefused, match="web is used by a container that runs"):
        store.remove("web")
    store.load(str(layout(Made((LOWER,), {}), "web").write(tmp_path / "2")))  # takes its name
    assert len(os.listdir(f"{store.folder}/layers")) == 2
    os.close(used)
    store.remove("web")
    assert contents(store) == set()
    assert store.use("sha256:" + "0" * 64) is None


def test_a_layer_without_rights_can_be_taken_in_and_away(store: Store, tmp_path: Path) -> None:
    closed = layer(folder("a", 0o000), entry("a/b", b"x", mode=0), folder("a/c", 0o500), entry("a/c/d", b"y"))
    store.load(str(layout(Made((closed,), {}), "web").write(tmp_path / "oci")))
    assert stat.S_IMODE(os.lstat(store.layer(image(store, "web").layers[0]) + "/a").st_mode) == 0
    store.remove("web")
    assert contents(store) == set()


def test_what_a_layer_brings_twice(store: Store, tmp_path: Path) -> None:
    twice = layer(
        entry("a", b"1"), folder("a"), entry("a/b", b"2"), entry("a", b"3"),
        entry("c", kind=tarfile.FIFOTYPE), entry("d", b"4"), entry("e", kind=tarfile.LNKTYPE, to="./d"), entry("d", b"5"),
        symlink("lib", "usr/lib"), entry("lib/x.so", b"6"), entry(".wh.f"), folder("f"), entry(".wh..wh.plnk"),
    )  # fmt: skip
    store.load(str(layout(Made((twice,), {}), "web").write(tmp_path / "oci")))
    place = Path(store.layer(image(store, "web").layers[0]))
    assert [(place / name).read_bytes() for name in ("a", "d", "e", "usr/lib/x.so")] == [b"3", b"5", b"4", b"6"]
    assert stat.S_ISFIFO((place / "c").stat().st_mode)
    assert os.getxattr(place / "f", "user.overlay.opaque") == b"y"
    assert sorted(os.listdir(place)) == ["a", "c", "d", "e", "f", "lib", "usr"]


def test_names_that_are_no_text_are_taken_as_they_are(store: Store, tmp_path: Path) -> None:
    odd = layer(entry("/", kind=tarfile.DIRTYPE), folder("\udcff"), entry("\udcff/\x1b[2J", b"1"), entry("\udcff/.wh.\udcfe"))
    store.load(str(layout(Made((odd,), {}), "web").write(tmp_path / "oci")))
    place = os.fsencode(store.layer(image(store, "web").layers[0]))
    assert sorted(os.listdir(place + b"/\xff")) == [b"\x1b[2J", b"\xfe"]
    store.remove("web")
    assert contents(store) == set()


def test_a_stack_has_each_layer_once_and_ends_where_all_is_hidden(store: Store, tmp_path: Path) -> None:
    hides = layer(entry(".wh..wh..opq"), entry("only", b"1"))
    for name, layers, wanted in (
        ("twice", (LOWER, UPPER, LOWER), (LOWER, UPPER)),
        ("hides", (LOWER, hides, UPPER), (UPPER, hides)),
        ("usual", (LOWER, UPPER), (UPPER, LOWER)),
    ):
        store.load(str(layout(Made(layers, {}), name).write(tmp_path / name)))
        assert store.stack(image(store, name)) == [store.layer(digest(one)) for one in wanted]


@pytest.mark.skipif(not os.environ.get("CI") and shutil.which("skopeo") is None, reason="skopeo is missing")
@pytest.mark.parametrize("transport", ["docker-archive:{}:shop/web:1", "oci-archive:{}:shop/web:1", "oci:{}:shop/web:1", "dir:{}"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_what_skopeo_writes(store: Store, tmp_path: Path, transport: str, compression: str) -> None:
    made = layout(Made(MADE.layers, MADE.execution, compression="" if "docker" in transport else compression), "").write(tmp_path / "made")
    target = transport.format(tmp_path / "out")
    subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{made}", target], check=True)
    named = "" if "shop" in transport else "shop/web:1"
    assert store.load(str(tmp_path / "out"), named) == ["docker.io/shop/web:1"]
    assert image(store, "shop/web:1").layers == tuple(digest(one) for one in MADE.layers)


def test_who_may_use_what_was_pulled_with_credentials(store: Store, tmp_path: Path) -> None:
    one, other = (str(layout(Made((LOWER, layer(entry("n", n.encode()))), {}), "").write(tmp_path / n)) for n in ("1", "2"))
    full = "example.com/web:1"

    def opens(*credentials: bytes, name: str = full) -> bool:
        return store.catalogue().opens(name, credentials)

    store.load(one, full, b"mine")
    assert (opens(), opens(b"no"), opens(b"no", b"mine")) == (False, False, True)
    assert b"mine" not in Path(store.folder, "catalogue.json").read_bytes()
    store.load(one, full, b"yours")
    assert (opens(), opens(b"mine"), opens(b"yours")) == (False, True, True)
    store.tag(full, "example.com/copy:1")
    assert (opens(name="example.com/copy:1"), opens(b"yours", name="example.com/copy:1")) == (False, True)
    store.load(other, full, b"yours")  # another image of this name: who opened the former one is to ask again
    assert (opens(b"mine"), opens(b"yours")) == (False, True)
    store.load(other, full)  # by a person, or from a registry that is open
    assert opens()
    store.load(other, full, b"mine")
    assert opens()
    store.remove(full)
    store.remove("example.com/copy:1")
    assert store.catalogue().pulled == {}


def test_several_load_at_once(store: Store, tmp_path: Path) -> None:
    archives = [str(layout(Made((LOWER, layer(entry("n", str(n).encode()))), {}), f"web:{n}").write(tmp_path / str(n))) for n in range(4)]
    failures: list[BaseException] = []

    def load(archive: str) -> None:
        try:
            Store(store.folder, machine=MACHINE).load(archive)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=load, args=(archive,)) for archive in archives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(store.catalogue().names) == 4
    assert len(os.listdir(f"{store.folder}/layers")) == 5
