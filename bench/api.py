"""api: the API server under load, over HTTPS, by a client on the same machine.

``create_per_s``: Pods created by 32 clients, each of which waits for its answer, so that what is counted is on disk. ``get_per_s``: one
Service, by wrk where it is installed. ``list_10k_pods_ms``: from the request to the last byte of all Pods. ``list_blocks_others_ms``:
the longest that another client waits for one object while such lists go out. ``watch_p99_ms``: 100 watchers, 100 changes a second; from
the moment the write is sent to the moment the watcher has the line. ``rss_mib``, ``restart_s``: with 100,000 objects, after kill -9,
until the first object is read.

Each figure is proved: what was created is listed, every watcher saw every change, after the restart all objects are there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import http.client
import multiprocessing
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from bench.api_objects import CONFIG_MAPS, NAMESPACE, PODS, SERVICES, config_map, pod, service
from bench.https_client import Connection, Download, Lines, Refused, drive, on_a_loop, request
from bench.report import Limit, Report, median, percentile
from tests.running_apiserver import ApiServer, start

PODS_COUNT = 10_000
CREATORS = 32
GET_S = 5
GETS = 20_000
READERS = 32
LISTS = 7
WATCHERS = 100
CHANGES_PER_S = 100
WATCH_S = 10
OBJECTS = 100_000

LIMITS = {
    "get_per_s": Limit(least=8000),
    "create_per_s": Limit(least=4000),
    "list_10k_pods_ms": Limit(most=80),
    "list_blocks_others_ms": Limit(most=10),
    "watch_p99_ms": Limit(most=50),
    "rss_mib": Limit(most=600),
    "restart_s": Limit(most=3),
}


def call(server: ApiServer, method: str, path: str, body: bytes = b"", expected: int = 200) -> bytes:
    """One request on a connection of its own."""
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=30)
    try:
        connection.request(method, path, body or None, {"content-type": "application/json"} if body else {})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != expected:
            raise Refused(text.decode())
        return text
    finally:
        connection.close()


def count(server: ApiServer, path: str) -> int:
    """How many objects there are, as the server counts them."""
    tree = orjson.loads(call(server, "GET", f"{path}?limit=1"))
    return len(tree["items"]) + int(tree["metadata"].get("remainingItemCount", 0))


def create(server: ApiServer) -> list[float]:
    """Create the Pods, in four parts; the rate of each."""
    rates = []
    part = PODS_COUNT // 4
    for first in range(0, PODS_COUNT, part):
        requests = [request("POST", PODS, pod(f"frontend-6d4cf56db6-{number:05}")) for number in range(first, first + part)]
        rates.append(part / on_a_loop(drive(server.port, server.context(), requests, CREATORS, 201)))
    if count(server, PODS) != PODS_COUNT:
        raise SystemExit("not all Pods that were created are there")
    stored = len(call(server, "GET", f"{PODS}/frontend-6d4cf56db6-00000"))
    if stored < 3072:
        raise SystemExit(f"a Pod has {stored} bytes: too small to count")
    return rates


def token(server: ApiServer) -> str:
    """Make a ServiceAccount that may read, and give its token: wrk has no client certificate."""
    accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
    subject = {"kind": "ServiceAccount", "name": "bench", "namespace": "kube-system"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    binding = {"metadata": {"name": "bench"}, "roleRef": role, "subjects": [subject]}
    call(server, "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", orjson.dumps(binding), 201)
    call(server, "POST", accounts, orjson.dumps({"metadata": {"name": "bench"}}), 201)
    made = call(server, "POST", f"{accounts}/bench/token", orjson.dumps({"spec": {}}), 201)
    return str(orjson.loads(made)["status"]["token"])


def get(server: ApiServer) -> list[float]:
    """Read one Service again and again."""
    call(server, "POST", SERVICES, service("frontend"), 201)
    stored = len(call(server, "GET", f"{SERVICES}/frontend"))
    if not 2500 <= stored < 3000:
        raise SystemExit(f"the Service has {stored} bytes instead of about 2,500")
    secret = token(server)
    if shutil.which("wrk") is None:
        requests = [request("GET", f"{SERVICES}/frontend")] * GETS
        return [GETS / on_a_loop(drive(server.port, server.context(), requests, READERS, 200)) for _ in range(3)]
    command = ["wrk", "-t1", f"-c{READERS}", f"-d{GET_S}", "-H", f"Authorization: Bearer {secret}", f"{server.url}{SERVICES}/frontend"]
    rates = []
    for _ in range(3):
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
        if rate is None or "Non-2xx" in said:
            raise SystemExit(f"wrk says:\n{said}")
        rates.append(float(rate[1]))
    return rates


def _read_list(port: int, context: ssl.SSLContext, buffer: bytearray) -> tuple[float, int]:
    """List all Pods over a fresh connection. Gives the milliseconds to the last byte, and the bytes read."""
    with Download(port, context) as download:
        begun = time.perf_counter()
        size = download.read(request("GET", PODS), buffer)
        return 1000 * (time.perf_counter() - begun), size


def lists(server: ApiServer) -> list[float]:
    """List all Pods, one after the other."""
    buffer = bytearray(80_000_000)
    taken = []
    for _ in range(LISTS):
        milliseconds, size = _read_list(server.port, server.context(), buffer)
        taken.append(milliseconds)
    if bytes(buffer[:size]).count(b'"uid":"') < 2 * PODS_COUNT:  # each Pod's own and its owner's
        raise SystemExit("the list does not hold all Pods")
    return taken


def blocked(server: ApiServer) -> list[float]:
    """Read one object as fast as it goes while lists go out; the longest that one read took during each list, in milliseconds."""
    longest, buffer = [], bytearray(80_000_000)
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=30)
    connection.connect()
    for _ in range(LISTS):
        lister = multiprocessing.get_context("fork").Process(target=_read_list, args=(server.port, server.context(), buffer))
        waits = []
        lister.start()
        while lister.is_alive():
            begun = time.perf_counter()
            connection.request("GET", f"{SERVICES}/frontend")
            connection.getresponse().read()
            waits.append(1000 * (time.perf_counter() - begun))
        lister.join()
        longest.append(max(waits))
    connection.close()
    return longest


async def _watch(server: ApiServer) -> list[float]:
    """Change ConfigMaps while many watch; the delay of each line, in milliseconds."""
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    all_told = loop.create_future()
    mark = b'"stamp":"'

    def told(line: bytes, now: float) -> None:
        at = line.find(mark)
        if at >= 0:
            delays.append(1000 * (now - float(line[at + len(mark) : line.index(b'"', at + len(mark))])))
            if len(delays) == WATCHERS * CHANGES_PER_S * WATCH_S:
                all_told.set_result(None)

    version = orjson.loads(call(server, "GET", f"{CONFIG_MAPS}?limit=1"))["metadata"]["resourceVersion"]
    begin = request("GET", f"{CONFIG_MAPS}?watch=1&resourceVersion={version}")
    watchers = []
    for _ in range(WATCHERS):
        _, watcher = await loop.create_connection(
            lambda: Lines(begin, told), "127.0.0.1", server.port, ssl=server.context(), server_hostname="localhost"
        )
        watchers.append(watcher)
    for watcher in watchers:
        await watcher.begun
    writer = await Connection.open(server.port, server.context())
    gc.disable()
    begun = time.monotonic()
    for number in range(CHANGES_PER_S * WATCH_S):
        wait = begun + number / CHANGES_PER_S - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        body = config_map(f"c-{number % 10}", repr(time.monotonic()))
        status, answer = await writer.send(request("PUT", f"{CONFIG_MAPS}/c-{number % 10}", body))
        if status != 200:
            raise Refused(answer.decode())
    await asyncio.wait_for(all_told, 30)
    gc.enable()
    if any(watcher.lost for watcher in watchers):
        raise SystemExit("a watch was lost")
    for watcher in watchers:
        watcher.transport.abort()
    writer.close()
    return delays


def watch(server: ApiServer) -> list[float]:
    """The delays of all lines to all watchers, in milliseconds."""
    import uvloop

    for number in range(10):
        call(server, "POST", CONFIG_MAPS, config_map(f"c-{number}"), 201)
    return uvloop.run(_watch(server))


def fill(server: ApiServer) -> None:
    """Create ConfigMaps until there are as many objects as wanted."""
    missing = OBJECTS - PODS_COUNT
    for first in range(0, missing, 10_000):
        numbers = range(first, min(missing, first + 10_000))
        requests = (request("POST", CONFIG_MAPS, config_map(f"many-{number:06}", "-")) for number in numbers)
        on_a_loop(drive(server.port, server.context(), requests, CREATORS, 201))


def rss_mib(server: ApiServer) -> float:
    assert server.process is not None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def restart(server: ApiServer) -> float:
    """Kill the server and start it; the seconds until an object is read."""
    server.kill()
    begun = time.perf_counter()
    server.run()
    call(server, "GET", f"{SERVICES}/frontend")
    return time.perf_counter() - begun


@contextlib.contextmanager
def serving() -> Iterator[ApiServer]:
    """A server in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="podwire-bench-") as folder:
        server = start(Path(folder))
        try:
            call(server, "POST", "/api/v1/namespaces", orjson.dumps({"metadata": {"name": NAMESPACE}}), 201)
            yield server
        finally:
            server.kill()
            server.listener.close()


def measure() -> tuple[dict[str, list[float]], dict[str, float]]:
    """Give the samples and the figures."""
    samples: dict[str, list[float]] = {}
    with serving() as server:
        samples["create_per_s"] = create(server)
        samples["get_per_s"] = get(server)
        samples["list_10k_pods_ms"] = lists(server)
        samples["list_blocks_others_ms"] = blocked(server)
        delays = watch(server)
        samples["watch_ms"] = [percentile(delays, share) for share in (0.5, 0.9, 0.99, 1.0)]
        fill(server)
        filled = rss_mib(server)
        samples["restart_s"] = [restart(server) for _ in range(3)]
        samples["rss_mib"] = [filled, rss_mib(server)]
        there = count(server, CONFIG_MAPS) + count(server, PODS)
        if there < OBJECTS:
            raise SystemExit(f"{there} objects after the restart instead of {OBJECTS}")
    figures = {name: median(samples[name]) for name in LIMITS if name in samples and name not in ("rss_mib", "list_blocks_others_ms")}
    figures["list_blocks_others_ms"] = max(samples["list_blocks_others_ms"])
    figures["watch_p99_ms"] = samples["watch_ms"][2]
    figures["rss_mib"] = max(samples["rss_mib"])
    return samples, {name: figures[name] for name in LIMITS}


def run() -> Report:
    """Run the benchmark."""
    samples, figures = measure()
    given = {"pods": PODS_COUNT, "objects": OBJECTS, "clients": CREATORS, "watchers": WATCHERS, "changes_per_s": CHANGES_PER_S}
    return Report("api", figures, samples, given, LIMITS)
