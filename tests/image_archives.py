"""Images made by tests, as skopeo, docker save and buildkit write them: layers from entries, archives from layers. Not a test."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from podwire.images.documents import ARCHITECTURES

Entry = tuple[tarfile.TarInfo, bytes]
Tree = dict[str, Any]

ARCHITECTURE = ARCHITECTURES.get(platform.machine(), platform.machine())
OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
BUSYBOX = "/usr/bin/busybox"
APPLETS = (
    "sh",
    "httpd",
    "wget",
    "cat",
    "ls",
    "id",
    "sleep",
    "tar",
    "nslookup",
    "mount",
    "touch",
    "hostname",
    "env",
    "pwd",
    "kill",
    "ps",
    "grep",
    "stty",
    "tty",
)


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, *, to: str = "", mode: int = 0o644, **more: Any) -> Entry:
    """One entry of a layer."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size, info.mtime = kind, to, mode, len(data), 1_700_000_000
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, mode: int = 0o755) -> Entry:
    return entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, to: str) -> Entry:
    return entry(name, kind=tarfile.SYMTYPE, to=to)


def layer(*entries: Entry) -> bytes:
    """A layer: a tar file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def digest(text: bytes) -> str:
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def compressed(plain: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(plain, 1, mtime=0)
    return zstandard.compress(plain) if how == "zstd" else plain


@dataclass(frozen=True)
class Made:
    """One image. ``execution`` is its configuration's ``config``."""

    layers: Sequence[bytes]
    execution: Mapping[str, Any]
    architecture: str = ARCHITECTURE
    compression: str = "gzip"

    @property
    def configuration(self) -> bytes:
        diff_ids = [digest(one) for one in self.layers]
        tree = {
            "architecture": self.architecture,
            "os": "linux",
            "config": self.execution,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
        return json.dumps(tree).encode()


class Layout:
    """The files of an OCI layout, by path; changed by tests before they are written."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
        self.listed: list[Tree] = []

    def blob(self, text: bytes, media_type: str, **more: Any) -> Tree:
        self.files["blobs/" + digest(text).replace(":", "/")] = text
        return {"mediaType": media_type, "digest": digest(text), "size": len(text), **more}

    def document(self, tree: Tree, media_type: str, **more: Any) -> Tree:
        return self.blob(json.dumps(tree).encode(), media_type, **more)

    def manifest(self, made: Made, **more: Any) -> Tree:
        suffix = f"+{made.compression}" if made.compression else ""
        layers = [self.blob(compressed(one, made.compression), f"{OCI}.layer.v1.tar{suffix}") for one in made.layers]
        config = self.blob(made.configuration, f"{OCI}.config.v1+json")
        media_type = f"{OCI}.manifest.v1+json"
        return self.document({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers}, media_type, **more)

    def list(self, described: Tree, name: str) -> None:
        """``index.json`` names it, as buildkit does."""
        named = {"annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "latest"}} if name else {}
        self.listed.append(described | named)

    def whole(self) -> dict[str, bytes]:
        return {**self.files, "index.json": json.dumps({"schemaVersion": 2, "manifests": self.listed}).encode()}

    def write(self, place: Path) -> Path:
        """As a folder."""
        for name, text in self.whole().items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
        return place

    def write_tar(self, path: Path) -> Path:
        path.write_bytes(layer(*(entry(name, text) for name, text in self.whole().items())))
        return path


def layout(made: Made, name: str) -> Layout:
    """The layout of one image."""
    made_layout = Layout()
    made_layout.list(made_layout.manifest(made), name)
    return made_layout


def docker_archive(path: Path, made: Made, *names: str) -> Path:
    """As ``docker save`` and skopeo's docker-archive write it: layers plain, a layer that is there twice a symbolic link."""
    entries, paths, known = [], [], {}
    for number, one in enumerate(made.layers):
        name = f"{number:064x}/layer.tar"
        entries.append(symlink(name, f"../{known[one]}") if one in known else entry(name, one))
        known.setdefault(one, name)
        paths.append(name)
    config = digest(made.configuration).removeprefix("sha256:") + ".json"
    listed = [{"Config": config, "RepoTags": list(names), "Layers": paths}]
    path.write_bytes(layer(entry(config, made.configuration), *entries, entry("manifest.json", json.dumps(listed).encode())))
    return path


def busybox(*more: Entry, **execution: Any) -> Made:
    """A small image that is a real one: busybox, a user data base, and what is given."""
    binary = Path(BUSYBOX).read_bytes()
    base = layer(
        folder("bin"),
        entry("bin/busybox", binary, mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in APPLETS),
        folder("etc"),
        entry("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n"),
        entry("etc/group", b"root:x:0:root\nstaff:x:50:root\nweb:x:1000:\n"),
        folder("root", 0o700),
        folder("tmp", 0o1777),
    )
    top = layer(folder("www"), entry("www/index.html", b"from the image\n"), *more)
    return Made((base, top), {"Env": ["PATH=/bin", "FROM=image"], "Cmd": ["sh"], **execution})
