"""logs, exec, attach, cp, port-forward and proxy with stock kubectl, over WebSocket and over SPDY, on every kind of container."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.lab import Cluster, installation, until

OLDER = f"{installation()}/.cache/kubectl-old:{installation()}/.venv/bin:/usr/bin:/bin"  # where the older kubectl is not, the newest
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false", "PATH": OLDER}
WEBSOCKET: dict[str, str] = {}
PROTOCOLS = pytest.mark.parametrize("protocol", [WEBSOCKET, SPDY], ids=["websocket", "spdy"])
MIB = 1024 * 1024


def container(name: str, image: str, *command: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, "env": [{"name": "COLOUR", "value": "green"}], **more} | (
        {"command": list(command)} if command else {}
    )


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    spec = {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


COUNTING = "echo begin; echo warned >&2; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); echo line $i; sleep 0.05; done"


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[tuple[Cluster, tuple[str, str]]]:
    here = ("-n", "streams")
    cluster.kubectl("create", "namespace", "streams")
    server = container("server", "example.com/server", ports=[{"containerPort": 8080, "name": "http"}])
    items = [
        pod("tool", container("main", "podwire.dev/machine", "sh", "-c", COUNTING)),
        pod("web", server, container("beside", "example.com/beside")),
        pod(
            "strict",
            container("main", "example.com/strict", workingDir="/srv/none", securityContext={"runAsUser": 1001, "privileged": False}),
            securityContext={"runAsUser": 1000, "runAsGroup": 1000, "runAsNonRoot": True, "fsGroup": 1000},
        ),
        pod("talk", container("main", "podwire.dev/machine", "cat", stdin=True)),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
    ]
    cluster.kubectl("create", *here, "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    cluster.ready("streams")
    yield cluster, here
    cluster.kubectl("delete", "namespace", "streams", "--timeout=60s")


Pods = tuple[Cluster, tuple[str, str]]


@PROTOCOLS
@pytest.mark.parametrize("where", [("tool",), ("web", "-c", "server"), ("web", "-c", "beside"), ("strict",)], ids="-".join)
def test_exec_runs_a_command_in_every_kind_of_container(pods: Pods, where: tuple[str, ...], protocol: dict[str, str]) -> None:
    cluster, here = pods
    script = "echo $COLOUR; hostname; cat; echo wrong >&2; touch /etc/x; echo kept > /tmp/kept; exit 3"
    done = cluster.kubectl("exec", "-i", *here, *where, "--", "sh", "-c", script, stdin="said\n", environment=protocol, status=3)
    assert done.stdout == f"green\n{where[0]}\nsaid\n"
    assert "wrong\n" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "command terminated with exit code 3" in done.stderr
    assert cluster.kubectl("exec", *here, *where, "--", "cat", "/tmp/kept", environment=protocol).stdout == "kept\n"
    missing = cluster.kubectl("exec", *here, *where, "--", "no-such-program", environment=protocol, status=127)
    assert 'exec: "no-such-program": executable file not found in $PATH: unknown' in missing.stderr


@PROTOCOLS
def test_much_goes_both_ways_unchanged(pods: Pods, protocol: dict[str, str]) -> None:
    cluster, here = pods
    big = cluster.user.home / "big"
    big.write_bytes(os.urandom(5 * MIB))
    big.chmod(0o644)
    for place in ("tool:/tmp/big", "web:/tmp/big"):
        more = ("-c", "server") if place.startswith("web") else ()
        cluster.kubectl("cp", *here, *more, str(big), place, environment=protocol)
        back = cluster.user.home / "back"
        cluster.kubectl("cp", *here, *more, place, str(back), environment=protocol)
        assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(big.read_bytes()).digest()


def test_a_terminal_has_a_size_and_is_hung_up(pods: Pods) -> None:
    cluster, here = pods
    # A client that is slow to say its size is waited for only so long.
    waiting = 'i=0; while test "$(stty size)" = "0 0" -a $i -lt 100; do i=$((i+1)); sleep 0.1; done'
    script = f"{waiting}; stty size; test -t 0 && echo terminal; exit 5"
    command = f"kubectl --context podwire-{cluster.name} exec -it {' '.join(here)} tool -- sh -c '{script}'"
    done = cluster.user.run(["script", "-qec", f"stty rows 33 cols 101; {command}", "/dev/null"], status=5)
    assert "33 101" in done.stdout
    assert "terminal\n" in done.stdout


def test_logs_are_read_as_a_kubelet_gives_them(pods: Pods) -> None:
    cluster, here = pods
    until(lambda: cluster.kubectl("logs", *here, "tool").stdout.count("\n") > 10, "it has said something")
    lines = cluster.kubectl("logs", *here, "tool").stdout.splitlines()
    # stdout and stderr are two pipes: what is said on one may be read before what was said earlier on the other.
    assert "warned" in lines
    assert [line for line in lines if line != "warned"][:4] == ["begin", "line 1", "line 2", "line 3"]
    assert len(cluster.kubectl("logs", *here, "tool", "--tail=3").stdout.splitlines()) == 3
    assert cluster.kubectl("logs", *here, "tool", "--limit-bytes=4").stdout in {"begi", "warn"}
    stamped = cluster.kubectl("logs", *here, "tool", "--tail=1", "--timestamps").stdout
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line \d+\n", stamped)
    with cluster.user.start(
        ["kubectl", "--context", f"podwire-{cluster.name}", "logs", "-f", *here, "tool", "--tail=1"], stdout=subprocess.PIPE
    ) as following:
        assert following.stdout is not None
        first, *more = [following.stdout.readline() for _ in range(4)]
        number = int(first.split()[1])
        assert more == [f"line {number + step}\n" for step in (1, 2, 3)]
        following.terminate()
    refused = cluster.kubectl("logs", *here, "tool", "--previous", status=1).stderr
    assert 'previous terminated container "main" in pod "tool" not found' in refused
    unnamed = cluster.kubectl("get", "--raw", "/api/v1/namespaces/streams/pods/web/log", status=1).stderr
    assert "a container name must be specified for pod web, choose one of: [server beside]" in unnamed
    assert (
        "container x is not valid for pod tool"
        in cluster.kubectl("get", "--raw", "/api/v1/namespaces/streams/pods/tool/log?container=x", status=1).stderr
    )


def test_a_run_that_has_ended_has_said_everything(pods: Pods) -> None:
    cluster, here = pods
    script = "seq 1 3000; test -e /tmp/never"
    body = pod("short", container("main", "podwire.dev/machine", "sh", "-c", script), restartPolicy="Always")
    cluster.kubectl("create", *here, "-f", "-", stdin=json.dumps(body))
    expected = "".join(f"{number}\n" for number in range(1, 3001))

    def restarts() -> int:
        return sum(one["restartCount"] for one in cluster.get("pod", "short", *here)["status"].get("containerStatuses", ()))

    until(lambda: restarts() >= 1, "it is restarted")
    assert cluster.kubectl("logs", *here, "short", "--previous").stdout == expected
    cluster.kubectl("delete", "pod", *here, "short", "--now")


@PROTOCOLS
def test_attach_gives_a_container_its_stdin(pods: Pods, protocol: dict[str, str]) -> None:
    cluster, here = pods
    command = ["kubectl", "--context", f"podwire-{cluster.name}", "attach", "-i", *here, "talk"]
    with cluster.user.start(command, protocol, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        for word in ("one\n", "two\n"):
            attached.stdin.write(word)
            attached.stdin.flush()
            assert attached.stdout.readline() == word
        attached.kill()
    assert cluster.kubectl("logs", *here, "talk", "--tail=2").stdout == "one\ntwo\n"


def test_run_gives_a_shell_and_takes_it_away(pods: Pods) -> None:
    cluster, here = pods
    words = ["run", "shell", "-i", "--rm", "--restart=Never", "--image=podwire.dev/machine", "--quiet", "--pod-running-timeout=60s"]
    done = cluster.kubectl(*words, *here, "--command", "--", "sh", stdin="sleep 0.5; echo $((6*7)) from $(hostname)\nexit 0\n")
    assert "42 from shell" in done.stdout
    until(lambda: cluster.kubectl("get", "pod", *here, "shell", status=None).returncode == 1, "it is gone")


def test_a_clients_shell_runs_its_command_for_who_attaches(pods: Pods) -> None:
    cluster, here = pods
    words = ["run", "client", "-i", "--rm", "--restart=Never", "--image=busybox:1.37", "--quiet", "--pod-running-timeout=60s", *here]
    done = cluster.kubectl(*words, "--", "sh", "-c", "cat; hostname; exit 5", stdin="said\n", status=5)
    assert done.stdout.startswith("said\nclient\n")
    until(lambda: cluster.kubectl("get", "pod", *here, "client", status=None).returncode == 1, "it is gone")
    done = cluster.kubectl(*words, stdin="wget -qO- http://web/hello 2>&1 | tr , '\\n'\n")
    assert '"path":"/hello"' in done.stdout
    debug = ["debug", "tool", "-i", "--image=busybox", "-c", "looking", "--quiet", *here]
    assert cluster.kubectl(*debug, "--", "sh", "-c", "hostname; echo -n bad >&2").stdout == "tool\n"
    # What was said to who attached is the container's log.
    assert cluster.kubectl("logs", *here, "tool", "-c", "looking").stdout == "tool\nbad"


WEBSOCKET_HEAD = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.parametrize(
    ("frames", "code"), [(b"\x88\x80\0\0\0\0", 1000), (b"\x82\x05\0abcd", 1002)], ids=["says goodbye", "does not mask"]
)
def test_a_client_that_has_taken_leave_is_hung_up_on(pods: Pods, frames: bytes, code: int) -> None:
    """Nothing of its connection stays, though the client keeps its end."""
    cluster, _ = pods
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json").stdout)
    found, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(found["certificate-authority-data"]).decode())
    pem = cluster.user.home / "leave.pem"
    pem.write_bytes(b"".join(base64.b64decode(user[key]) for key in ("client-certificate-data", "client-key-data")))
    context.load_cert_chain(pem)
    path = "/api/v1/namespaces/streams/pods/tool/exec?command=cat&stdin=true&stdout=true"
    head = f"GET {path} HTTP/1.1\r\nhost: a\r\n{WEBSOCKET_HEAD}sec-websocket-protocol: v5.channel.k8s.io\r\n\r\n"
    port = int(found["server"].rpartition(":")[2])
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(head.encode() + frames)
        said = b""
        while piece := connection.recv(65536):
            said += piece
    assert said.startswith(b"HTTP/1.1 101 ")
    assert said.endswith(b"\x88\x02" + code.to_bytes(2, "big"))


@contextlib.contextmanager
def forwarded(pods: Pods, protocol: dict[str, str], where: str, port: int) -> Iterator[tuple[int, Path]]:
    cluster, here = pods
    said = cluster.user.home / f"port-forward-{time.monotonic_ns()}"
    command = ["kubectl", "--context", f"podwire-{cluster.name}", "port-forward", *here, where, f":{port}"]
    with said.open("w") as log, cluster.user.start(command, protocol, stdout=log, stderr=log) as process:
        found = until(lambda: re.search(r"127.0.0.1:(\d+) ->", said.read_text()), "it listens")
        yield int(found[1]), said
        process.kill()


def fetch(port: int, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        connection.request("GET", path)
        found: dict[str, Any] = json.loads(connection.getresponse().read())
        return found


@PROTOCOLS
def test_port_forward_carries_several_connections(pods: Pods, protocol: dict[str, str]) -> None:
    with forwarded(pods, protocol, "pod/web", 8080) as (port, _):
        kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with contextlib.closing(kept):
            for path in ("/a", "/b"):
                kept.request("GET", path)
                answer = json.loads(kept.getresponse().read())
                assert (answer["path"], answer["caller"]["address"]) == (path, "127.0.0.1")
                assert fetch(port, "/beside")["path"] == "/beside"
    with forwarded(pods, protocol, "pod/web", 81) as (port, said):
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            fetch(port, "/")
        until(lambda: "connect: connection refused" in said.read_text(), "the refusal is told")


@PROTOCOLS
def test_port_forward_ends_when_both_sides_have_said_all(pods: Pods, protocol: dict[str, str]) -> None:
    """A client that says that it has said all is answered, and then sees the end; so does one that waits for it."""
    with forwarded(pods, protocol, "pod/web", 8080) as (port, _):
        for says_so in (True, False):
            with socket.create_connection(("127.0.0.1", port), 20) as connection:
                connection.sendall(b"GET /end HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                if says_so:
                    connection.shutdown(socket.SHUT_WR)
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
                assert json.loads(answer.partition(b"\r\n\r\n")[2])["path"] == "/end"


def test_proxies_lead_to_pods_services_and_nodes(pods: Pods) -> None:
    cluster, _ = pods

    def raw(path: str, **options: Any) -> Any:
        return cluster.kubectl("get", "--raw", path, **options)

    base = "/api/v1/namespaces/streams"
    for place in ("pods/web:8080", "pods/web", "services/web:80", "services/http:web:http", "services/web:http"):
        answer = json.loads(until(lambda place=place: raw(f"{base}/{place}/proxy/a/b?d=e", status=None).stdout, place))
        assert answer["path"] == "/a/b?d=e"
        assert "authorization" not in answer["headers"]
    assert "connect: connection refused" in raw(f"{base}/pods/web:81/proxy/", status=1).stderr
    assert 'no service port "81" found for service "web"' in raw(f"{base}/services/web:81/proxy/", status=1).stderr
    node = cluster.get("pod", "web", "-n", "streams")["spec"]["nodeName"]
    assert raw(f"/api/v1/nodes/{node}/proxy/healthz").stdout == "ok"
    names = {item["metadata"]["name"] for item in json.loads(raw(f"/api/v1/nodes/{node}/proxy/pods").stdout)["items"]}
    assert "web" in names
    summary = json.loads(raw(f"/api/v1/nodes/{node}/proxy/stats/summary").stdout)
    assert summary["node"]["nodeName"] == node
    assert any(one["podRef"]["name"] == "web" and one["network"]["rxBytes"] > 0 for one in summary["pods"])
    assert "kubelet_running_pods" in raw(f"/api/v1/nodes/{node}/proxy/metrics").stdout


def test_a_kubelet_hears_only_whom_it_may(pods: Pods) -> None:
    cluster, here = pods
    address = cluster.get("nodes")["items"][0]["status"]["addresses"][0]["address"]
    script = f"""
import ssl, http.client
context = ssl._create_unverified_context()
own = open("/var/run/secrets/kubernetes.io/serviceaccount/token").read()
for headers in ({{}}, {{"Authorization": "Bearer wrong"}}, {{"Authorization": "Bearer " + own}}):
    connection = http.client.HTTPSConnection("{address}", 10250, context=context, timeout=10)
    connection.request("GET", "/pods", headers=headers)
    print(connection.getresponse().status)
"""
    done = cluster.kubectl("exec", "-i", *here, "tool", "--", cluster.user.python, "-", stdin=script)
    assert done.stdout.split() == ["401", "401", "403"]


def test_debug_adds_a_container_and_copies_a_pod(pods: Pods) -> None:
    cluster, here = pods
    image = "--image=podwire.dev/machine"
    words = ["debug", "tool", *here, image, "-c", "look", "--target=main", "--quiet", "-i", "--"]
    # What is attached hears what is said after it has come.
    script = "sleep 1; hostname; ls /proc/1/cwd >/dev/null && tr '\\0' ' ' < /proc/1/cmdline"
    done = cluster.kubectl(*words, "sh", "-c", script, status=None)
    told = done.stdout + cluster.kubectl("logs", *here, "tool", "-c", "look").stdout
    assert "tool\n" in told, (done.stdout, done.stderr)
    assert "echo begin" in told
    found = cluster.get("pod", "tool", *here)
    assert found["status"]["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
    gone = json.dumps({"spec": {"ephemeralContainers": []}})
    refused = cluster.kubectl("patch", "pod", "tool", *here, "--subresource=ephemeralcontainers", "--type=merge", "-p", gone, status=1)
    assert "may not be removed" in refused.stderr
    cluster.kubectl("debug", "web", *here, image, "--copy-to=web-copy", "--container=look", "--quiet", "--", "sleep", "1000")
    until(lambda: cluster.get("pod", "web-copy", *here)["status"]["phase"] == "Running", "the copy runs")
    assert [one["name"] for one in cluster.get("pod", "web-copy", *here)["spec"]["containers"]] == ["server", "beside", "look"]
    cluster.kubectl("delete", "pod", *here, "web-copy", "--now")


def test_a_nodes_debugger_sees_the_nodes_processes(pods: Pods) -> None:
    cluster, here = pods
    node = cluster.get("pod", "tool", *here)["spec"]["nodeName"]
    debug = ["debug", f"node/{node}", "-i", "--quiet", "--image=podwire.dev/machine", *here, "--"]
    script = "sleep 1; for one in /proc/[0-9]*; do tr '\\0' ' ' < $one/cmdline; echo; done 2>/dev/null; test -d /host/etc && hostname"
    cluster.kubectl(*debug, "sh", "-c", script)
    debugger = next(one for one in cluster.get("pods", *here)["items"] if one["metadata"]["name"].startswith("node-debugger"))
    assert (debugger["spec"]["hostPID"], debugger["spec"]["hostIPC"], debugger["spec"]["hostNetwork"]) == (True, True, True)
    said = cluster.kubectl("logs", *here, debugger["metadata"]["name"]).stdout
    assert f"podwire-init init/{node}" in said
    assert "echo begin" in said, "what runs in a Pod of the node"
    assert said.endswith(f"{node}\n")
    cluster.kubectl("delete", "pod", *here, debugger["metadata"]["name"], "--now")


def test_commands_in_a_stand_in_share_what_its_pod_has(pods: Pods) -> None:
    cluster, here = pods
    look = ("sh", "-c", "ls /dev/mqueue /dev/shm; ipcs -q | grep -c 0x")
    cluster.kubectl("exec", *here, "web", "-c", "server", "--", "sh", "-c", "ipcmk -Q && touch /dev/mqueue/queue /dev/shm/memory")
    assert cluster.kubectl("exec", *here, "web", "-c", "beside", "--", *look).stdout == "/dev/mqueue:\nqueue\n\n/dev/shm:\nmemory\n1\n"
    assert cluster.kubectl("exec", *here, "tool", "--", *look, status=1).stdout == "/dev/mqueue:\n\n/dev/shm:\n0\n"
