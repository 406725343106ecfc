"""An ordinary user to whom /etc/subuid and /etc/subgid lend users: containers have those, and what they leave can be taken away.

The test runs in a mount namespace where these files name the user. newuidmap and newgidmap there are a script of a copy of this
interpreter, which may set ids as the real ones may: it writes what they are asked for, if the files lend it.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.lab import NOBODY, a_cluster, a_user, traces_of, until
from image_archives import busybox, entry, layout
from podwire.linux import syscalls

FIRST, COUNT = 1_400_000_000, 65_535
PROGRAM = """#!{python} -IS
import sys
pid, *words = sys.argv[1:]
rows = [tuple(map(int, words[at:at + 3])) for at in range(0, len(words), 3)]
own, lent = rows
assert own[0] == 0 and own[2] == 1 and lent == (1, {first}, {count}), rows
name = "uid_map" if "newuidmap" in sys.argv[0] else "gid_map"
open(f"/proc/{{pid}}/{{name}}", "w").write("".join(f"{{inside}} {{outside}} {{count}}\\n" for inside, outside, count in rows))
"""
_SETGID, _SETUID, _DAC_OVERRIDE, _SYS_PTRACE, _SETFCAP = 6, 7, 1, 19, 31


def in_a_mount_namespace(action: Callable[[], None]) -> None:
    """Call it in a forked process with mounts of its own. Raises AssertionError with its traceback."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
            action()
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert not said, said


def lend(place: Path) -> None:
    """Have the files lend users to NOBODY, and the programs that give them be found."""
    place.chmod(0o755)
    python = place / "python"
    shutil.copyfile(os.path.realpath(sys.executable), python)
    python.chmod(0o755)
    mask = sum(1 << one for one in (_SETGID, _SETUID, _DAC_OVERRIDE, _SYS_PTRACE, _SETFCAP))
    os.setxattr(python, "security.capability", struct.pack("<IIIII", 0x02000001, mask, 0, 0, 0))  # VFS_CAP_REVISION_2, effective
    programs = place / "bin"
    shutil.copytree("/usr/local/bin", programs, symlinks=True)
    for name in ("newuidmap", "newgidmap"):
        (programs / name).write_text(PROGRAM.format(python=python, first=FIRST, count=COUNT))
        (programs / name).chmod(0o755)
    (place / "lent").write_text(f"nobody:{FIRST}:{COUNT + 1}\n")
    for source, target in ((programs, "/usr/local/bin"), (place / "lent", "/etc/subuid"), (place / "lent", "/etc/subgid")):
        syscalls.mount(str(source), target, "", syscalls.MS_BIND)


@pytest.mark.parametrize("uid", [pytest.param(NOBODY, id="uid-65534")] if os.geteuid() == 0 else [])
def test_an_ordinary_user_runs_images_with_the_users_that_are_lent(uid: int) -> None:
    def action() -> None:
        with a_user(0) as lender, a_user(uid) as user:
            lend(lender.home)
            found = {row["name"]: row for row in json.loads(user.podwire("doctor", "-o", "json", status=None).stdout)["findings"]}
            assert found["users of images"]["status"] == "ok", found["users of images"]
            assert str(FIRST) in found["users of images"]["found"]
            _run(user)
            user.podwire("image", "rm", "shop/web:1")
            assert traces_of(user)["mounts"] == []
            state = user.home / ".local/state/podwire"
            assert {path.name for path in state.rglob("*") if path.is_file()} <= {"catalogue.json", "lock"}

    in_a_mount_namespace(action)


def _run(user) -> None:  # type: ignore[no-untyped-def]
    owned = entry("home/web/secret", b"of web\n", mode=0o600)
    owned[0].uid = owned[0].gid = 1000
    user.podwire("image", "load", str(layout(busybox(owned, User="web"), "shop/web:1").write_tar(user.home / "web.tar")))
    with a_cluster(user, "lent", "--zones", "1") as cluster:
        script = "id -u; cat /home/web/secret; mkdir -m 700 /data/mine && touch /data/mine/file && echo wrote; exec sleep 100000"
        container = {"name": "main", "image": "shop/web:1", "command": ["sh", "-c", script]}
        container |= {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
        spec = {"terminationGracePeriodSeconds": 1, "containers": [container], "securityContext": {"fsGroup": 5}}
        spec |= {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        items = [
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": claim},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec},
        ]
        cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        cluster.ready()
        until(lambda: cluster.kubectl("logs", "web").stdout.splitlines() == ["1000", "of web", "wrote"], "it is web")
