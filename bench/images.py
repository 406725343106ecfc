"""images: an image of 100 MB loaded, containers run from it, and what two hundred of them cost on the disk.

``load_s``: ``podwire image load`` of an archive that the store does not know (busybox and 1,000 files of random bytes, gzip).
``start_p50_ms``: from the moment at which the API has taken a Pod to the one at which it says that it is ready, its readiness probe (HTTP)
included; one Pod after the other, the median. ``start_200_s``: from the start of ``podwire apply`` of a Deployment of 200 to all ready.
``disk_ratio``: what the store and the nodes' folders take with 200 Pods, over what they take with one.

Proof: all Pods are ready, each has an address of its own and the image's id, and asked through the Service each answer is the file that
only the image has.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.cluster_up import podwire
from bench.pods_ready import until_ready
from bench.report import Limit, Report, median
from podwire.client.api import Client

IMAGE = "bench.example/web:1"
BUSYBOX = Path("/usr/bin/busybox")
FILES, FILE_SIZE = 1000, 100_000
LOADS, STARTS, CROWD, NODES = 3, 20, 200, 3
WORDS = "from the image"
_PODS = "/api/v1/namespaces/default/pods"


def layer(files: dict[str, bytes]) -> bytes:
    """A layer with these files, all of them executable."""
    place = io.BytesIO()
    with tarfile.open(fileobj=place, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(text), 0o755
            tar.addfile(info, io.BytesIO(text))
    return place.getvalue()


def write_archive(path: Path, layers: list[bytes]) -> None:
    """An archive in the OCI layout, as ``skopeo copy ... oci-archive:`` writes it."""
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(text: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(text).hexdigest()
        files[f"blobs/sha256/{digest}"] = text
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(text)}

    diff_ids = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    config = {"architecture": machine, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    described = [blob(gzip.compress(one, 1), "layer.v1.tar+gzip") for one in layers]
    manifest = {"schemaVersion": 2, "config": blob(json.dumps(config).encode(), "config.v1+json"), "layers": described}
    listed = blob(json.dumps(manifest).encode(), "manifest.v1+json") | {"annotations": {"io.containerd.image.name": IMAGE}}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [listed]}).encode()
    path.write_bytes(layer(files))


def server() -> dict[str, Any]:
    probe = {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1}
    command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
    ports = [{"containerPort": 8080}]
    container = {"name": "server", "image": IMAGE, "imagePullPolicy": "Never", "command": command, "ports": ports, "readinessProbe": probe}
    return {"terminationGracePeriodSeconds": 0, "containers": [container]}


def crowd() -> str:
    """The Deployment and its Service."""
    labels = {"app": "crowd"}
    template = {"metadata": {"labels": labels}, "spec": server()}
    deployment = {"replicas": CROWD, "selector": {"matchLabels": labels}, "template": template}
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "crowd"},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crowd"}, "spec": deployment},
    ]
    return "\n---\n".join(json.dumps(document) for document in documents)


async def start_one(client: Client, number: int) -> float:
    """Seconds from a Pod that is taken to one that is ready."""
    name = f"one-{number}"
    await client.request("POST", _PODS, {"metadata": {"name": name}, "spec": server()})
    began = time.perf_counter()
    while time.perf_counter() - began < 60:
        pod = json.loads(await client.request("GET", f"{_PODS}/{name}"))
        if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())):
            return time.perf_counter() - began
        await asyncio.sleep(0.002)
    raise SystemExit(f"{name} is not ready after 60 s: {pod['status']}")


async def prove(client: Client, home: Path) -> None:
    """Raise SystemExit unless the final state is what it should be."""
    pods = json.loads(await client.request("GET", f"{_PODS}?labelSelector=app%3Dcrowd"))["items"]
    ids = {pod["status"]["containerStatuses"][0]["imageID"] for pod in pods if pod["status"]["containerStatuses"][0]["ready"]}
    if len(pods) != CROWD or len({pod["status"]["podIP"] for pod in pods}) != CROWD or len(ids) != 1 or "" in ids:
        raise SystemExit(f"{len(pods)} Pods, not {CROWD}, or not all are run from the image: {ids}")
    name = pods[0]["metadata"]["name"]
    for _ in range(5):
        answer = podwire(home, "kubectl", "exec", name, "--", "/bin/busybox", "wget", "-qO-", "http://crowd/index.html")
        if answer != WORDS:
            raise SystemExit(f"the Service answered {answer!r}, which is not the image's file")


def disk(home: Path) -> int:
    """Bytes on the disk of the store and of the nodes' folders."""
    state = home / ".local/state/podwire"
    places = [state / "images", *(entry / "nodes" for entry in state.iterdir() if entry.name != "images")]
    return sum(path.lstat().st_blocks * 512 for place in places for path in place.rglob("*"))


async def measure(home: Path) -> tuple[list[float], float, float]:
    async with Client.from_kubeconfig(str(home / ".kube/config")) as client:
        await start_one(client, 0)  # the first one finds nothing in the machine's memory
        one = await asyncio.to_thread(disk, home)
        starts = [await start_one(client, number) for number in range(1, STARTS + 1)]
        for number in range(STARTS + 1):
            await client.request("DELETE", f"{_PODS}/one-{number}")
        while json.loads(await client.request("GET", _PODS))["items"]:  # noqa: ASYNC110  (asked, as kubectl asks)
            await asyncio.sleep(0.05)
        (home / "crowd.yaml").write_text(crowd())
        began = time.perf_counter()
        await asyncio.to_thread(podwire, home, "apply", "-f", str(home / "crowd.yaml"))
        await until_ready(client, CROWD)
        together = time.perf_counter() - began
        await prove(client, home)
        return starts, together, await asyncio.to_thread(disk, home) / one


def load(home: Path, archive: Path) -> float:
    began = time.perf_counter()
    podwire(home, "image", "load", str(archive))
    return time.perf_counter() - began


def run() -> Report:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="podwire-bench-") as folder:
        home = Path(folder)
        archive = home / "image.tar"
        base = layer({"bin/busybox": BUSYBOX.read_bytes(), "www/index.html": WORDS.encode()})
        write_archive(archive, [base, layer({f"data/{n % 20}/{n}": os.urandom(FILE_SIZE) for n in range(FILES)})])
        loads = []
        for number in range(LOADS):
            if number:
                podwire(home, "image", "rm", IMAGE)
            loads.append(load(home, archive))
        podwire(home, "up")
        try:
            starts, together, ratio = asyncio.run(measure(home))
        finally:
            podwire(home, "down")
        podwire(home, "image", "rm", IMAGE)
    starts_ms = [value * 1000 for value in starts]
    figures = {"load_s": median(loads), "start_p50_ms": median(starts_ms), "start_200_s": together, "disk_ratio": ratio}
    samples = {"load_s": loads, "start_ms": starts_ms}
    limits = {"load_s": Limit(most=3), "start_p50_ms": Limit(most=120), "start_200_s": Limit(most=15), "disk_ratio": Limit(most=1.2)}
    return Report("images", figures, samples, {"bytes": FILES * FILE_SIZE, "pods": CROWD, "nodes": NODES}, limits)
