"""Archives that are wrong: each is refused by name, and nothing of it is stored."""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from image_archives import ARCHITECTURE, DOCKER, OCI, Entry, Layout, Made, digest, docker_archive, entry, folder, layer, layout, symlink
from podwire.images.documents import Platform
from podwire.images.errors import ImageRefused
from podwire.images.layer import Budget
from podwire.images.store import Store

MACHINE = Platform(ARCHITECTURE, "linux")
GOOD = layer(folder("etc"), entry("etc/word", b"good" * 1000))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one image, which must be as it was after everything that fails."""
    made = Store(str(tmp_path / "store"), machine=MACHINE)
    made.load(str(layout(Made((GOOD,), {}), "good").write(tmp_path / "good")))
    return made


def state(store: Store) -> object:
    return store.catalogue(), sorted(os.listdir(f"{store.folder}/layers")), os.listdir(f"{store.folder}/new")


def refused(store: Store, archive: Path | str, words: str, name: str = "") -> None:
    before = state(store)
    with pytest.raises(ImageRefused, match=words):
        store.load(str(archive), name)
    assert state(store) == before


LAYERS: dict[str, tuple[tuple[Entry, ...], str]] = {
    "dots": ((entry("a/../../evil"),), r"a/\.\./\.\./evil, which leads out of the layer by '\.\.'"),
    "absolute": ((entry("/etc/evil"),), "/etc/evil, an absolute path"),
    "absolute link": ((symlink("out", "/tmp"), entry("out/evil")), "out/evil leads out of the layer: out is a symbolic link to /tmp"),
    "relative link": ((symlink("a/out", "../../tmp"), entry("a/out/evil")), "a/out/evil leads out of the layer by a symbolic link"),
    "link chain": ((symlink("a", "b"), symlink("b", ".."), entry("a/evil")), "a/evil leads out of the layer by a symbolic link"),
    "link loop": ((symlink("a", "b"), symlink("b", "a"), entry("a/evil")), "a/evil leads out of the layer"),
    "below a file": ((entry("a"), entry("a/b")), "a/b: a is a file"),
    "whiteout through a link": ((symlink("out", "/tmp"), entry("out/.wh.x")), r"out/\.wh\.x leads out of the layer"),
    "whiteout of nothing": ((entry(".wh..."),), "hides nothing that has a name"),
    "hard link outside": (
        (entry("a", kind=tarfile.LNKTYPE, to="../../etc/passwd"),),
        r"a is a hard link to \.\./\.\./etc/passwd, which leads",
    ),
    "hard link, absolute": ((entry("a", kind=tarfile.LNKTYPE, to="/etc/passwd"),), "a is a hard link to /etc/passwd, an absolute path"),
    "hard link to nothing": (
        (entry("a", kind=tarfile.LNKTYPE, to="etc/passwd"),),
        "a is a hard link to etc/passwd, which is no file of this",
    ),
    "hard link through a link": (
        (symlink("out", "/etc"), entry("a", kind=tarfile.LNKTYPE, to="out/passwd")),
        "leads out of the layer: out is a symbolic link to /etc",
    ),
    "character device": ((entry("dev/mem", kind=tarfile.CHRTYPE, devmajor=1, devminor=1),), "dev/mem is a device node"),
    "block device": ((entry("dev/vda", kind=tarfile.BLKTYPE, devmajor=8),), "dev/vda is a device node"),
    "long name": ((entry("a" * 300),), "File name too long"),
    "sparse, GNU": ((entry("a", b"x", kind=tarfile.GNUTYPE_SPARSE),), "a is a sparse file, which no layer may bring"),
    "sparse, PAX 0.0": ((entry("a", pax_headers={"GNU.sparse.size": "1099511627776"}),), "a is a sparse file"),
    "sparse, PAX 0.1": ((entry("a", pax_headers={"GNU.sparse.map": "1,a", "GNU.sparse.size": "9"}),), "a is a sparse file"),
    "sparse, PAX 1.0": ((entry("a", b"1" * 512, pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),), "a is a sparse file"),
    "no time": ((entry("a", pax_headers={"mtime": "1e300"}),), r"a: 1e\+300 is no time of a file"),
    "no number for a time": ((entry("a", pax_headers={"mtime": "nan"}),), r"a: nan is no time of a file"),
    "no time of a folder": ((entry("a", kind=tarfile.DIRTYPE, pax_headers={"mtime": "-1e12"}),), r"a: -1000000000000\.0 is no time"),
    "a name that speaks to the terminal": ((entry("a\x1b[2J", kind=b"Z"),), r"layer sha256:\w+: a\\x1b\[2J is of the unknown type"),
    "a name that is no text": ((entry("\udcff\udcfe", kind=tarfile.CHRTYPE),), r"\\udcff\\udcfe is a device node"),
    "unknown type": ((entry("a", kind=b"Z"),), "a is of the unknown type"),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_that_may_not_be(store: Store, tmp_path: Path, case: str) -> None:
    entries, words = LAYERS[case]
    outside = tmp_path / "evil"
    refused(store, layout(Made((GOOD, layer(entry("good"), *entries)), {}), "bad").write(tmp_path / "bad"), words)
    assert not outside.exists()


def truncated_tar(place: Path) -> Path:
    path = layout(Made((layer(entry("big", os.urandom(100_000))),), {}), "bad").write_tar(place / "bad.tar")
    path.write_bytes(path.read_bytes()[:60_000])
    return path


def truncated_docker(place: Path) -> Path:
    path = docker_archive(place / "bad.tar", Made((layer(entry("big", os.urandom(100_000))),), {}), "bad")
    path.write_bytes(path.read_bytes()[:60_000])
    return path


def _bent(change: Callable[[Layout, str], None]) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        made = layout(Made((GOOD, layer(entry("other", os.urandom(5000)))), {}), "bad")
        manifest = json.loads(made.files["blobs/" + made.listed[0]["digest"].replace(":", "/")])
        change(made, "blobs/" + manifest["layers"][1]["digest"].replace(":", "/"))
        return made.write(place / "bad")

    return write


def _flip(made: Layout, blob: str) -> None:
    made.files[blob] = made.files[blob][:2000] + b"!" + made.files[blob][2001:]


def _longer(made: Layout, blob: str) -> None:
    made.files[blob] += b"more"


def _shorter(made: Layout, blob: str) -> None:
    made.files[blob] = made.files[blob][:-100]


def _swap_manifest(made: Layout, _blob: str) -> None:
    made.files["blobs/" + made.listed[0]["digest"].replace(":", "/")] += b" "


def _missing(made: Layout, blob: str) -> None:
    del made.files[blob]


def wrong_diff_id(place: Path) -> Path:
    class Lying(Made):
        @property
        def configuration(self) -> bytes:
            return Made((GOOD, b"something else"), {}).configuration

    return layout(Lying((GOOD, layer(entry("a"))), {}), "bad").write(place / "bad")


def other_platform(place: Path) -> Path:
    return layout(Made((GOOD,), {}, architecture="s390x"), "bad").write(place / "bad")


def no_platform(place: Path) -> Path:
    made = Layout()
    manifests = [
        made.manifest(Made((GOOD,), {}, architecture=one), platform={"os": "linux", "architecture": one}) for one in ("s390x", "ppc64le")
    ]
    made.list(made.document({"manifests": manifests}, f"{OCI}.index.v1+json"), "bad")
    return made.write(place / "bad")


def unknown_layer(place: Path) -> Path:
    made = Layout()
    config = made.blob(Made((GOOD,), {}).configuration, f"{OCI}.config.v1+json")
    described = made.blob(GOOD, "application/vnd.example.squashfs")
    made.list(made.document({"config": config, "layers": [described]}, f"{OCI}.manifest.v1+json"), "bad")
    return made.write(place / "bad")


def unknown_manifest(place: Path) -> Path:
    made = Layout()
    made.list(made.document({"schemaVersion": 1}, f"{DOCKER}.distribution.manifest.v1+prettyjws"), "bad")
    return made.write(place / "bad")


def index_without_end(place: Path) -> Path:
    made = Layout()
    described = made.manifest(Made((GOOD,), {}))
    for _ in range(6):
        described = made.document({"manifests": [described]}, f"{OCI}.index.v1+json")
    made.list(described, "bad")
    return made.write(place / "bad")


def layers_do_not_match(place: Path) -> Path:
    made = Layout()
    config = made.blob(Made((GOOD, GOOD), {}).configuration, f"{OCI}.config.v1+json")
    described = made.blob(GOOD, f"{OCI}.layer.v1.tar")
    made.list(made.document({"config": config, "layers": [described]}, f"{OCI}.manifest.v1+json"), "bad")
    return made.write(place / "bad")


def not_an_archive(place: Path) -> Path:
    (place / "bad.tar").write_bytes(b"#!/bin/sh\necho no\n" * 100)
    return place / "bad.tar"


def another_tar(place: Path) -> Path:
    (place / "bad.tar").write_bytes(GOOD)
    return place / "bad.tar"


def not_json(place: Path) -> Path:
    made = layout(Made((GOOD,), {}), "bad").write(place / "bad")
    (made / "index.json").write_text("{")
    return made


def wrong_form(place: Path) -> Path:
    made = layout(Made((GOOD,), {}), "bad").write(place / "bad")
    (made / "index.json").write_text('{"manifests": [{"mediaType": 5}]}')
    return made


def odd_digest(place: Path) -> Path:
    made = Layout()
    made.list({"mediaType": f"{OCI}.manifest.v1+json", "digest": "sha256:../../../etc/passwd", "size": 1}, "bad")
    return made.write(place / "bad")


def absolute_layer_of_docker(place: Path) -> Path:
    config = Made((layer(entry("a")),), {}).configuration
    listed = [{"Config": "c.json", "RepoTags": ["bad"], "Layers": ["/etc/passwd"]}]
    (place / "bad.tar").write_bytes(layer(entry("c.json", config), entry("manifest.json", json.dumps(listed).encode())))
    return place / "bad.tar"


def header_bomb(place: Path) -> Path:
    bad = layer(entry("a", pax_headers={"comment": "x" * (2 << 20)}))
    return layout(Made((bad,), {}), "bad").write(place / "bad")


def headers_for_all(place: Path) -> Path:
    """Each is small, and all of them would be kept."""
    headers = b""
    for number in range(8):
        one = tarfile.TarInfo.create_pax_global_header({f"key{number}": "x" * (200 << 10)})
        headers += one
    return layout(Made((headers + layer(entry("a")),), {}), "bad").write(place / "bad")


def headers_behind_headers(place: Path) -> Path:
    one = layer(entry("a" * 200, pax_headers={"comment": "x"}))[:1024]
    return layout(Made((one * 1000 + layer(entry("a")),), {}), "bad").write(place / "bad")


def header_bomb_around(place: Path) -> Path:
    (place / "bad.tar").write_bytes(layer(entry("oci-layout", pax_headers={"comment": "x" * (2 << 20)})))
    return place / "bad.tar"


def too_many_layers(place: Path) -> Path:
    return layout(Made([layer(entry(str(number))) for number in range(128)], {}), "bad").write(place / "bad")


def deep_document(place: Path) -> Path:
    made = layout(Made((GOOD,), {}), "bad").write(place / "bad")
    (made / "index.json").write_text('{"more": ' + "[" * 100_000)
    return made


def flat(place: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """As skopeo's ``dir``."""
    made = layout(Made((GOOD,), {}), "")
    files = {name.rpartition("/")[2]: text for name, text in made.files.items() if name.startswith("blobs/")}
    files |= {"version": b"Directory Transport Version: 1.1\n", "manifest.json": files.pop(made.listed[0]["digest"].rpartition(":")[2])}
    change(files)
    (place / "bad").mkdir()
    for name, text in files.items():
        (place / "bad" / name).write_bytes(text)
    return place / "bad"


ARCHIVES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (truncated_tar, "bad.tar is no archive of images, or not all of it is there: unexpected end of data"),
    "truncated docker archive": (truncated_docker, "bad.tar is no archive of images, or not all of it is there: unexpected end of data"),
    "wrong digest of a layer": (_bent(_flip), r"layer sha256:\w+ of \d+ bytes: what is there has \d+ bytes and the digest sha256:"),
    "longer layer": (_bent(_longer), r"layer sha256:\w+ of \d+ bytes: what is there has"),
    "truncated layer": (_bent(_shorter), r"layer sha256:\w+ of \d+ bytes: what is there has"),
    "missing layer": (_bent(_missing), r"blob sha256:\w+ is not there"),
    "wrong digest of a manifest": (_bent(_swap_manifest), r"blob sha256:\w+ of \d+ bytes: what is there has"),
    "wrong diff id": (wrong_diff_id, r"its content has the digest sha256:\w+, the configuration says sha256:"),
    "another platform": (other_platform, rf"bad is for linux/s390x; this machine is linux/{ARCHITECTURE}"),
    "no build for this platform": (no_platform, rf"bad is for linux/ppc64le, linux/s390x; this machine is linux/{ARCHITECTURE}"),
    "unknown layer": (unknown_layer, r"layer sha256:\w+: unknown media type 'application/vnd.example.squashfs'"),
    "unknown manifest": (unknown_manifest, "unknown media type 'application/vnd.docker.distribution.manifest.v1"),
    "indexes without end": (index_without_end, "leads through more than 4 indexes"),
    "layers that do not match": (layers_do_not_match, "bad has 1 layers, its configuration names 2"),
    "no archive": (not_an_archive, "bad.tar is no archive of images"),
    "another tar": (another_tar, "bad.tar is no archive of images: it has neither oci-layout"),
    "no JSON": (not_json, "index.json is not what it should be"),
    "wrong form": (wrong_form, r"index.json is not what it should be: .*`\$\.manifests\[0\]"),
    "odd digest": (odd_digest, "'sha256:../../../etc/passwd' of 1 bytes is no digest"),
    "a file beside the archive": (absolute_layer_of_docker, "layer /etc/passwd is not there"),
    "header bomb": (header_bomb, r"a header of \d+ bytes, where at most \d+ are read"),
    "headers for all": (headers_for_all, r"a header of \d+ bytes, where at most \d+ are read"),
    "headers behind headers": (headers_behind_headers, r"layer sha256:\w+ is broken, or not all of it is there: maximum recursion"),
    "header bomb around": (header_bomb_around, r"a header of \d+ bytes, where at most \d+ are read"),
    "too many layers": (too_many_layers, "bad has 128 layers; at most 127 can be laid over each other"),
    "deep document": (deep_document, "index.json is not what it should be"),
    "flat, no manifest": (lambda place: flat(place, lambda files: files.pop("manifest.json") and None), "bad: manifest.json is not there"),
    "nothing there": (lambda place: place / "absent.tar", "absent.tar: No such file or directory"),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_may_not_be(store: Store, tmp_path: Path, case: str) -> None:
    write, words = ARCHIVES[case]
    refused(store, write(tmp_path), words)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_is_stopped(store: Store, tmp_path: Path, compression: str) -> None:
    bomb = layer(entry("zeros", b"\0" * (20 << 20)))
    archive = layout(Made((GOOD, bomb), {}, compression=compression), "bad").write(tmp_path / "bad")
    small = Store(store.folder, machine=MACHINE, budget=lambda: Budget(size=10 << 20))
    refused(small, archive, r"layer sha256:\w+: zeros: the image unpacks to more than is taken \(bytes\)")


def test_many_files_are_a_bomb_too(store: Store, tmp_path: Path) -> None:
    archive = layout(Made((layer(*(entry(str(n)) for n in range(200))),), {}), "bad").write(tmp_path / "bad")
    small = Store(store.folder, machine=MACHINE, budget=lambda: Budget(files=100))
    refused(small, archive, r"the image unpacks to more than is taken \(files\)")


def test_a_flat_folder_with_another_layer(store: Store, tmp_path: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        name = next(name for name, text in files.items() if text.startswith(b"\x1f\x8b"))
        files[name] += b"!"

    store.remove("good")  # a layer that is there already is not read again
    refused(store, flat(tmp_path, change), r"layer sha256:\w+ of \d+ bytes: what is there has", "shop/web:1")


@pytest.mark.parametrize(
    ("bomb", "budget", "words"),
    [
        ((entry("a/" * 500 + "b"),), Budget(files=100), "files"),  # folders that no entry names
        ([entry(f"{n:03}" + "x" * 200) for n in range(20)], Budget(names=1000), "bytes of names"),
        ((entry("a/" * 500 + "b"),), Budget(names=10_000), "bytes of names"),
    ],
    ids=["folders", "names", "names of folders"],
)
def test_what_is_only_a_name_is_counted_too(store: Store, tmp_path: Path, bomb: Sequence[Entry], budget: Budget, words: str) -> None:
    archive = layout(Made((layer(*bomb),), {}), "bad").write(tmp_path / "bad")
    refused(Store(store.folder, machine=MACHINE, budget=lambda: replace(budget)), archive, rf"unpacks to more than is taken \({words}\)")


def test_zeros_behind_the_archive_are_a_bomb_too(store: Store, tmp_path: Path) -> None:
    archive = layout(Made((layer(entry("a")) + b"\0" * (20 << 20),), {}), "bad").write(tmp_path / "bad")
    small = Store(store.folder, machine=MACHINE, budget=lambda: Budget(size=10 << 20))
    refused(small, archive, "is larger than 10485760 bytes, which is the most that is taken")


def test_an_archive_on_standard_input(store: Store, tmp_path: Path) -> None:
    text = layout(Made((GOOD,), {}), "piped").write_tar(tmp_path / "oci.tar").read_bytes()

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert store.load(Pipe(text)) == ["docker.io/library/piped:latest"]
    before = state(store)
    with pytest.raises(ImageRefused, match=re.escape("the archive on standard input is no archive of images, or not all of it")):
        store.load(Pipe(text[:4000]))
    assert state(store) == before


def test_owners_that_nobody_can_be_are_user_0(tmp_path: Path, store: Store) -> None:
    odd = entry("odd", b"x")
    odd[0].uid, odd[0].gid = 1 << 40, -5
    made = Made((layer(odd),), {})
    store.load(str(layout(made, "shop/odd:1").write_tar(tmp_path / "odd.tar")))
    place = Path(store.layer(digest(made.layers[0])))
    assert ((place / "odd").stat().st_uid, (place / "odd").stat().st_gid) == (os.geteuid(), os.getegid())
