"""A disk without room, and a load that is killed: nothing half is stored."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from image_archives import ARCHITECTURE, Made, entry, layer, layout
from podwire.images.documents import Platform
from podwire.images.errors import ImageRefused
from podwire.images.store import Store
from podwire.linux import syscalls

MACHINE = Platform(ARCHITECTURE, "linux")


def test_no_space_left() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "small").mkdir()
        syscalls.mount("tmpfs", f"{place}/small", "tmpfs", 0, "size=4m")
        store = Store(f"{place}/small/store", machine=MACHINE)
        store.load(str(layout(Made((layer(entry("a", b"1")),), {}), "good").write(place / "good")))
        before = store.catalogue(), os.listdir(f"{store.folder}/layers")
        big = layout(Made((layer(entry("a", b"2")), layer(entry("b", os.urandom(6 << 20)))), {}), "big").write(place / "big")
        with pytest.raises(ImageRefused, match=r"No space left on device: .*/small/store has no room for the image"):
            store.load(str(big))
        assert (store.catalogue(), os.listdir(f"{store.folder}/layers")) == before
        assert os.listdir(f"{store.folder}/new") == []
        syscalls.umount(f"{place}/small")


def test_killed_while_it_loads() -> None:
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        store = Store(f"{place}/store", machine=MACHINE)
        store.load(str(layout(Made((layer(entry("a", b"1")),), {}), "good").write(place / "good")))
        before = store.catalogue()
        many = layer(*(entry(f"{n:05}", b"x" * 2000) for n in range(4000)))
        archive = layout(Made((layer(entry("a", b"2")), many), {}), "big").write(place / "big")
        child = os.fork()
        if child == 0:
            Store(store.folder, machine=MACHINE).load(str(archive))
            os._exit(0)
        limit = time.monotonic() + 20
        while not (new := os.listdir(f"{store.folder}/new")) or not os.listdir(f"{store.folder}/new/{new[-1]}"):
            assert time.monotonic() < limit
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        assert store.catalogue() == before
        assert len(os.listdir(f"{store.folder}/layers")) == 1
        assert store.load(str(archive)) == ["docker.io/library/big:latest"]
        assert os.listdir(f"{store.folder}/new") == []
