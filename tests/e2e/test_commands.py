"""The other words of the command line, on a running cluster."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

from e2e.lab import Cluster, until
from podwire.wire import pcap


def test_exec_passes_everything_through(cluster: Cluster) -> None:
    assert cluster.exec("internet", "cat", stdin="hello").stdout == "hello"
    assert cluster.exec("internet", "sh", "-c", "exit 7", status=7).stdout == ""
    assert cluster.exec("internet", "sh", "-c", "kill -TERM $$", status=143).stdout == ""
    missing = cluster.exec("internet", "no-such-program", status=127)
    assert "no-such-program" in missing.stderr
    unknown = cluster.exec("node/nowhere", "true", status=2)
    assert "node/gke-" in unknown.stderr
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    links = cluster.exec(f"node/{node}", cluster.user.python, "-c", "import socket; print(sorted(n for _, n in socket.if_nameindex()))")
    assert "'cbr0'" in links.stdout
    assert "'eth0'" in links.stdout


def test_exec_passes_signals_and_a_terminal(cluster: Cluster) -> None:
    program = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\nprint('up', flush=True)\nsignal.pause()"
    command = ["podwire", "exec", "--name", cluster.name, "internet", "--", cluster.user.python, "-c", program]
    with cluster.user.start(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        running.send_signal(signal.SIGTERM)
        assert running.wait(10) == 9
    master, slave = pty.openpty()
    shell = [
        "podwire",
        "exec",
        "--name",
        cluster.name,
        "internet",
        "--",
        "sh",
        "-c",
        "test -t 0 && stty size && read line && echo got $line",
    ]
    with cluster.user.start(shell, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as running:
        os.close(slave)
        os.write(master, b"abc\n")
        assert running.wait(10) == 0
    shown = os.read(master, 4096).decode()
    os.close(master)
    assert "got abc" in shown


def test_capture_writes_what_crosses_a_place(cluster: Cluster) -> None:
    file = cluster.user.home / "x.pcap"
    server = cluster.get("endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes")["items"][0]
    address = server["endpoints"][0]["addresses"][0]
    command = ["podwire", "capture", "--name", cluster.name, "-c", "3", "-w", str(file), "control", "tcp", "port", "443"]
    with cluster.user.start(command, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        assert "capturing" in running.stderr.readline()
        assert running.wait(30) == 0
    packets = list(pcap.read(file.read_bytes()))
    assert len(packets) == 3
    assert all(f"{address}.443" in pcap.line(packet) for packet in packets)
    # The API is asked by somebody all the time, if only for a lease.
    assert cluster.podwire("capture", "-c", "1", "control", "tcp").stderr.splitlines()[-1].startswith("1 packet captured, ")
    wrong = cluster.podwire("capture", "control", "prot", "443", status=2)
    assert "unexpected 'prot'" in wrong.stderr


def test_status_doctor_version_logs(cluster: Cluster) -> None:
    status = cluster.status()
    assert status["ready"]
    assert {"apiserver", "controllers", "vpc", "publish"} <= {process["name"] for process in status["processes"]}
    assert len(status["nodes"]) == 3
    assert cluster.podwire("status").stdout.strip()
    examined = json.loads(cluster.user.podwire("doctor", "-o", "json").stdout)
    assert examined["ok"]
    assert {"user namespaces", "nftables", "open files", "congestion control"} <= {row["name"] for row in examined["findings"]}
    assert set(json.loads(cluster.user.podwire("version", "-o", "json").stdout)) == {"podwire", "kubernetes", "python", "kernel"}
    assert "ready" in cluster.podwire("logs", "controllers").stdout
    assert "there is no process" in cluster.podwire("logs", "nobody", status=2).stderr


def test_dump_holds_what_a_report_needs_and_no_secret(cluster: Cluster, tmp_path: Path) -> None:
    folder = cluster.user.home / "dump"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "treasure"}, "stringData": {"k": "in the cellar, left"}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
    token = cluster.kubectl("create", "token", "default").stdout.strip()
    cluster.podwire("dump", str(folder))
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert "status.json" in names
    assert any(name.startswith("logs/") for name in names)
    assert any(name.startswith("objects/") for name in names)
    rulesets = [name for name in names if name.endswith("ruleset.nft")]
    assert len(rulesets) >= 4
    assert any("podwire-services" in (folder / name).read_text() for name in rulesets)
    text = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"PRIVATE KEY" not in text
    assert token.partition(".")[0].encode() not in text  # the beginning of every token that this cluster signs
    assert b"in the cellar" not in text
    secrets = [value for item in cluster.get("secrets", "-A")["items"] for value in item["data"].values()]
    assert secrets
    assert not any(value.encode() in text for value in secrets)


def test_the_machine_image_runs_a_program_of_the_machine(cluster: Cluster) -> None:
    command = ["/bin/sh", "-c", "echo x > /tmp/mine && cd /tmp && exec /usr/bin/python3 -m http.server 9000"]
    container = {"name": "web", "image": "podwire.dev/machine", "command": command, "ports": [{"containerPort": 9000}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "machine"}, "spec": {"containers": [container]}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/machine", "--timeout=30s")
    address = cluster.get("pod", "machine")["status"]["podIP"]
    code = f"import urllib.request; print(urllib.request.urlopen('http://{address}:9000/mine').status)"
    where = "node/" + cluster.get("pod", "machine")["spec"]["nodeName"]
    until(lambda: cluster.exec(where, cluster.user.python, "-c", code, status=None).stdout == "200\n", "an answer")
    assert not Path("/tmp/mine").exists()
    cluster.kubectl("delete", "pod", "machine", "--grace-period=1")


def test_a_foreign_manifest_starts_no_program_of_the_machine(cluster: Cluster) -> None:
    mark = cluster.user.home / "started"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "foreign"},
        "spec": {"containers": [{"name": "c", "image": "evil/podwire.dev/machine", "command": ["touch", str(mark)]}]},
    }
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(pod))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/foreign", "--timeout=30s")
    assert not mark.exists()
    assert "tand-in" in cluster.kubectl("describe", "pod", "foreign").stdout
    cluster.kubectl("delete", "pod", "foreign", "--grace-period=1")


def test_a_killed_process_comes_back(cluster: Cluster) -> None:
    for process in cluster.status()["processes"]:
        if process["name"] not in {"apiserver", "controllers", "vpc", "publish"} and not process["name"].startswith(("node/", "standins/")):
            continue
        os.kill(process["pid"], signal.SIGKILL)
        until(
            lambda process=process: any(
                row["name"] == process["name"] and row["restarts"] > process["restarts"] for row in cluster.status()["processes"]
            ),
            f"{process['name']} started again",
        )
        until(lambda: cluster.status()["ready"], "ready again")
