"""Other people's container runtimes call podwire-cni for real containers: containerd and podman of Debian, on an image made here.

They want to be root on the machine (several users in an image, cgroups), so the script runs as root in namespaces of its own: network,
mount and pid; a user who is not root can have neither. Nothing is fetched: the image is busybox in one layer.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import oracles
from kernel.pods.calling import installed

_IMAGE = "localhost/busybox:latest"
_OCI = "application/vnd.oci.image"

_BEGIN = """\
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t proc proc /proc
ip link set lo up
fetch() { for try in $(seq 100); do ask "$1" && return; sleep 0.1; done; echo "nothing at $1"; exit 1; }
ask() { curl -sf -m 2 "$1"; }
"""

_CONTAINERD = """\
containerd -c "$D/containerd.toml" >"$D/containerd.log" 2>&1 & daemon=$!
for try in $(seq 200); do [ -S "$D/containerd.sock" ] && break; sleep 0.05; done
mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mkdir -p /etc/cni/net.d
cp "$D/net.conflist" /etc/cni/net.d/10-podwire.conflist
mount -t tmpfs tmpfs /opt
mkdir /opt/cni
ln -s "$D/bin" /opt/cni/bin
ctr() { command ctr -a "$D/containerd.sock" -n podwire-test "$@"; }
ctr image import --no-unpack "$D/image.tar" >/dev/null
ctr run --rm --snapshotter native --cni IMAGE server /bin/httpd -f -p 80 -h /www & server=$!
fetch http://10.22.0.2/ >/dev/null
ip -4 -o address show cbr0 | sed 's/.*inet \\([0-9.]*\\).*/bridge \\1/'
echo "client $(ctr run --rm --snapshotter native --cni IMAGE client /bin/sh -c 'ip -4 -o address show eth0; wget -q -O - http://10.22.0.2/')"
echo "machine $(fetch http://10.22.0.2/)"
ctr task kill -s KILL server
wait $server || true
kill $daemon; wait $daemon || true
rmdir /sys/fs/cgroup/podwire-test /sys/fs/cgroup/*/podwire-test 2>/dev/null || true
"""

_PODMAN = """\
mount -t tmpfs tmpfs /sys/fs/cgroup
export CONTAINERS_CONF="$D/containers.conf" CONTAINERS_STORAGE_CONF="$D/storage.conf" TMPDIR="$D"
podman load -q -i "$D/image.tar" >/dev/null
podman run -d --name server --cgroups=disabled -p 8080:80 IMAGE /bin/httpd -f -p 80 -h /www >/dev/null
podman inspect server --format 'server {{.NetworkSettings.IPAddress}} {{.NetworkSettings.MacAddress}} {{.NetworkSettings.Gateway}}'
echo "machine $(fetch http://10.22.0.2/)"
echo "port $(fetch http://127.0.0.1:8080/)"
echo "client $(podman run --rm --cgroups=disabled IMAGE /bin/sh -c 'wget -q -O - http://10.22.0.1:8080/; ip link show eth0')"
podman rm -f -t 0 server >/dev/null
ask http://127.0.0.1:8080/ && echo "port still open"
"""

_END = """\
echo "links $(ip -o link show type veth | wc -l)"
echo "leases $(find "$D/data" -name given -exec cat {} + | awk '/^[+=]/ {n++; all++} /^-/ {n--} END {print n + 0 (all ? " now" : "")}')"
"""


def _blob(folder: Path, data: bytes, kind: str) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (folder / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": f"{_OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def _layer() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:

        def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", target: str = "", mode: int = 0o755) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname, info.mode = kind, len(data), target, mode
            tar.addfile(info, io.BytesIO(data))

        for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "www"):
            entry(name, tarfile.DIRTYPE)
        entry("bin/busybox", data=Path(oracles.program("busybox")).read_bytes())
        for name in ("sh", "ip", "wget", "httpd"):
            entry(f"bin/{name}", tarfile.SYMTYPE, target="busybox")
        entry("etc/passwd", data=b"root:x:0:0:root:/:/bin/sh\n", mode=0o644)
        entry("www/index.html", data=b"hello\n", mode=0o644)
    return buffer.getvalue()


def _image(path: Path) -> None:
    """An OCI image layout in a tar file, as `podman load` and `ctr image import` read it."""
    folder = path.parent / "layout"
    (folder / "blobs" / "sha256").mkdir(parents=True)
    layer = _blob(folder, _layer(), "layer.v1.tar")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    settings = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}
    config = {"architecture": machine, "os": "linux", "config": settings, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    told = _blob(folder, json.dumps(config).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": told, "layers": [layer]}
    found = _blob(folder, json.dumps(manifest).encode(), "manifest.v1+json")
    found["annotations"] = {"io.containerd.image.name": _IMAGE, "org.opencontainers.image.ref.name": "latest"}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [found]}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    with tarfile.open(path, "w") as tar:
        tar.add(folder, arcname=".")


def _prepare(folder: Path, version: str) -> None:
    installed(folder / "bin")
    _image(folder / "image.tar")
    plugin = {
        "type": "podwire-cni",
        "capabilities": {"portMappings": True},
        "ipMasq": True,
        "dataDir": str(folder / "data"),
        "ipam": {"ranges": [[{"subnet": "10.22.0.0/24"}]]},
    }
    text = json.dumps({"cniVersion": version, "name": "podman", "plugins": [plugin]})
    (folder / "net.conflist").write_text(text)
    (folder / "net.d").mkdir()
    (folder / "net.d" / "87-podman.conflist").write_text(text)
    (folder / "containerd.toml").write_text(
        f'version = 2\nroot = "/run/containerd-root"\nstate = "/run/containerd-state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{folder}/containerd.sock"\n'
    )
    (folder / "containers.conf").write_text(
        f'[network]\nnetwork_backend = "cni"\nnetwork_config_dir = "{folder}/net.d"\ncni_plugin_dirs = ["{folder}/bin"]\n'
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "crun"\n[containers]\nlog_driver = "k8s-file"\n'
    )
    (folder / "storage.conf").write_text('[storage]\ndriver = "vfs"\nrunroot = "/run/podman-run"\ngraphroot = "/run/podman-graph"\n')


def _run(folder: Path, script: str) -> dict[str, str]:
    if os.geteuid() != 0:
        pytest.skip("containerd and podman want to be root")
    text = _BEGIN + script.replace("IMAGE", _IMAGE) + _END
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", text]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    ran = subprocess.run(words, capture_output=True, text=True, timeout=100, env={"D": str(folder), "PATH": path, "HOME": str(folder)})
    log = folder / "containerd.log"
    assert ran.returncode == 0, ran.stdout + ran.stderr + (log.read_text()[-3000:] if log.exists() else "")
    return {word: rest for word, _, rest in (line.partition(" ") for line in ran.stdout.splitlines())} | {"all": ran.stdout}


def test_containerd_runs_containers_with_our_network(tmp_path: Path) -> None:
    for name in ("containerd", "ctr", "runc", "curl"):
        oracles.program(name)
    _prepare(tmp_path, "1.0.0")
    told = _run(tmp_path, _CONTAINERD)
    assert told["bridge"] == "10.22.0.1"
    assert "inet 10.22.0.3/32" in told["client"]
    assert told["all"].count("hello") == 2
    assert told["machine"] == "hello"
    assert (told["links"], told["leases"]) == ("0", "0 now")


def test_podman_runs_containers_with_our_network_and_host_ports(tmp_path: Path) -> None:
    for name in ("podman", "crun", "conmon", "curl"):
        oracles.program(name)
    _prepare(tmp_path, "0.4.0")
    told = _run(tmp_path, _PODMAN)
    assert told["server"] == "10.22.0.2 0a:58:0a:16:00:02 10.22.0.1"
    assert (told["machine"], told["port"]) == ("hello", "hello")
    assert told["client"] == "hello"
    assert "link/ether 0a:58:0a:16:00:03" in told["all"]
    assert "still open" not in told["all"]
    assert (told["links"], told["leases"]) == ("0", "0 now")
