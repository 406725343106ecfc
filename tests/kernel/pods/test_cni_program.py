"""The program podwire-cni: alone, as a client of the agent, and with other plugins before, behind and beneath it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import oracles
from kernel.pods.calling import Runtime, address_of, answering, installed, reach
from podwire.linux import namespaces
from podwire.linux.network import Network
from podwire.pods import wiring
from podwire.pods.cni.server import Server


@contextlib.contextmanager
def agent(path: Path) -> Iterator[None]:
    server = Server(str(path), logging.getLogger("cni"))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield
    finally:
        server.close()
        thread.join()


def program(folder: Path, socket: Path | None = None) -> Runtime:
    variables = {"PODWIRE_CNI_SOCKET": str(socket or folder / "none.sock")}
    return Runtime(folder, program=installed(folder / "bin"), variables=variables)


@pytest.mark.parametrize("served", [True, False], ids=["with an agent", "alone"])
def test_the_program_attaches_checks_and_deletes(served: bool, tmp_path: Path) -> None:
    runtime = program(tmp_path, tmp_path / "cni.sock")
    mappings = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    asked = runtime.configuration(runtimeConfig=mappings)
    with agent(tmp_path / "cni.sock") if served else contextlib.nullcontext():
        first, second = runtime.add("c1", asked), runtime.add("c2", runtime.configuration())
        with answering(runtime.namespaces["c1"], "0.0.0.0", 80) as seen:
            assert reach(runtime.namespaces["c2"], address_of(first), 80) == b"hello"
            assert reach(runtime.namespaces["c2"], "10.22.0.1", 8080) == b"hello"
        assert seen == [address_of(second)] * 2
        runtime.done("CHECK", "c1", asked)
        assert runtime.refused("ADD", "c1", asked)["code"] == 4
        assert runtime.call("VERSION", "", {"cniVersion": "1.1.0"})[1]["supportedVersions"][0] == "0.3.0"
        assert runtime.refused("ADD", "c1", {**asked, "mode": "tunnel"})["msg"].startswith(
            "mode: expected one of routed, bridge, ptp, chained"
        )
        runtime.done("STATUS", "", asked)
        runtime.done("DEL", "c1", asked)
        runtime.done("GC", "", asked | {"cni.dev/valid-attachments": []})
    with Network() as network:
        assert not [name for name in network.links() if name.startswith("veth")]


def test_a_client_loads_the_interpreters_own_modules_alone(tmp_path: Path) -> None:
    path = tmp_path / "cni.sock"
    text = installed(tmp_path / "bin").read_text().split("\n", 1)[1]
    shown = f"import sys, posix\nposix._exit = lambda status: print('loaded', *sys.modules, file=sys.stderr)\n{text}"
    words = {"CNI_COMMAND": "VERSION", "PODWIRE_CNI_SOCKET": str(path)}
    with agent(path):
        ran = subprocess.run([sys.executable, "-ISc", shown], input=b"{}", capture_output=True, env=words, timeout=60)
    assert json.loads(ran.stdout)["supportedVersions"]
    modules = ran.stderr.decode().partition("loaded ")[2].split()
    own = [name for name in modules if name.startswith("podwire")]
    assert own == ["podwire", "podwire.pods", "podwire.pods.cni", "podwire.pods.cni.program"]
    assert not {"os", "json", "socket", "re", "typing", "site", "click", "msgspec"} & set(modules)


def test_what_is_no_call_is_answered_all_the_same(tmp_path: Path) -> None:
    runtime = program(tmp_path)
    assert runtime.program is not None
    ran = subprocess.run([runtime.program], input=b"", capture_output=True, env={}, timeout=60)
    assert (ran.returncode, json.loads(ran.stdout)["code"]) == (1, 4)
    assert b"a container runtime calls it" in ran.stderr
    words = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0", "CNI_NETNS": "/proc/1/ns/net"}
    ran = subprocess.run([runtime.program], input=b"{", capture_output=True, env=words, timeout=60)
    assert (ran.returncode, json.loads(ran.stdout)["code"]) == (1, 6)


def test_no_address_is_given_twice_whoever_is_killed(tmp_path: Path) -> None:
    """ADDs are killed at every moment; those that go through have addresses of their own, and what was killed leaves nothing that stays."""
    runtime = program(tmp_path)
    asked = runtime.configuration(ipam={"subnet": "10.22.0.0/28"})
    body = json.dumps(asked).encode()
    assert runtime.program is not None
    for number in range(30):
        name = f"k{number}"
        runtime.container(name)
        words = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": name,
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{runtime.namespaces[name]}",
        }
        one = subprocess.Popen([runtime.program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=words | runtime.variables)
        assert one.stdin is not None
        one.stdin.write(body)
        one.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            one.wait(0.02 + 0.003 * number)
        one.send_signal(signal.SIGKILL)
        one.wait()
        runtime.gone(name)
    seen = set()
    for number in range(13):
        seen.add(address_of(runtime.add(f"c{number}", asked)))
    assert len(seen) == 13
    runtime.container("late")
    assert runtime.refused("ADD", "late", asked)["code"] == 11


def test_two_agents_and_programs_share_a_network(tmp_path: Path) -> None:
    runtime = program(tmp_path)
    asked = runtime.configuration()
    words = [
        {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": f"c{number}",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{runtime.container(f'c{number}')}",
        }
        for number in range(8)
    ]
    assert runtime.program is not None
    running = [
        subprocess.Popen([runtime.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=one | runtime.variables) for one in words
    ]
    for one in running:
        assert one.stdin is not None
        one.stdin.write(json.dumps(asked).encode())
        one.stdin.close()
    answers = [json.loads(one.stdout.read()) for one in running if one.stdout is not None]
    for one in running:
        one.wait()
    assert {address_of(answer) for answer in answers} == {f"10.22.0.{number}" for number in range(2, 10)}


def test_addresses_of_another_plugin_and_a_chain(tmp_path: Path) -> None:
    """Debian's host-local gives the addresses; its portmap and tuning come behind ours, as a runtime would call them."""
    folder = Path(oracles.program("/usr/lib/cni/host-local")).parent
    runtime = program(tmp_path)
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}]], "dataDir": str(tmp_path / "host-local")}
    for mode in ("routed", "bridge", "ptp"):
        asked = runtime.configuration(cniVersion="1.0.0", name=mode, mode=mode, bridge=f"br-{mode}", ipam=ipam)
        first, second = runtime.add(f"{mode}1", asked), runtime.add(f"{mode}2", asked)
        with answering(runtime.namespaces[f"{mode}2"], "0.0.0.0", 80):
            assert reach(runtime.namespaces[f"{mode}1"], address_of(second), 80) == b"hello"
        leases = tmp_path / "host-local" / mode
        assert {address_of(first), address_of(second)} <= {path.name for path in leases.iterdir()}
        runtime.done("CHECK", f"{mode}1", asked)
        for name in (f"{mode}1", f"{mode}2"):
            runtime.done("DEL", name, asked)
        assert not [path for path in leases.iterdir() if path.name.startswith("10.")]
    asked = runtime.configuration(cniVersion="1.0.0", name="chain", ipam=ipam | {"type": "none-such"})
    runtime.container("c1")
    assert "there is no plugin 'none-such' in CNI_PATH" in runtime.refused("ADD", "c1", asked)["msg"]
    asked = runtime.configuration(cniVersion="1.0.0", name="chain")
    before = runtime.add("c1", asked)
    tuning = Runtime(tmp_path, program=folder / "tuning")
    tuning.namespaces = runtime.namespaces
    settings = {"cniVersion": "1.0.0", "name": "chain", "type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "prevResult": before}
    assert tuning.add("c1", settings)["ips"] == before["ips"]
    read = namespaces.inside(runtime.namespaces["c1"], lambda: Path("/proc/sys/net/core/somaxconn").read_text())
    assert read.strip() == "500"
    assert wiring.port_of("c1 eth0") in {one["name"] for one in before["interfaces"]}
