"""The mode is changed under traffic: an agent of one dialect ends, one of the other starts, and nobody notices."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kernel.services import dialect
from kernel.services.dialect import IPTABLES, NFTABLES
from kernel.services.flood import SERVED, Target, accept, connect, flood, listen
from kernel.services.test_agent import CONFIG, Said, World, in_loop, service, slice_of
from kernel.services.test_beside import running
from kernel.services.test_packets import VIP, Proxies, world
from kernel.services.test_packets import service as service_of
from kernel.services.wires import Place, Wires, ask, host
from podwire.linux import namespaces
from podwire.linux.nftables import Nftables
from podwire.objects.resources import ENDPOINT_SLICES, SERVICES
from podwire.services import cleanup
from podwire.services.iptables import legacy
from podwire.services.layout import SPARE, TABLE
from podwire.views.frontends import ServiceFrontends
from podwire.wire.rtnetlink import Address, Route, add

NODE_PORT = 30080


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("d")


def dialects(namespace: int | None = None) -> set[str]:
    """In which words there are rules of Services."""

    def chains() -> str:
        return subprocess.run(["iptables-nft-save"], capture_output=True, text=True, check=True).stdout

    with Nftables(namespace) as kernel:
        nftables = {NFTABLES for name in kernel.names() if name in (("ip", TABLE), ("ip", SPARE))}
    found = chains() if namespace is None else namespaces.inside(namespace, chains)
    return nftables | {IPTABLES for line in found.splitlines() if line.startswith(":KUBE-SERVICES")}


@pytest.mark.parametrize(("before", "after"), [(NFTABLES, IPTABLES), (IPTABLES, NFTABLES)])
def test_no_connection_is_lost_when_the_dialect_is_changed(folder: Path, before: str, after: str) -> None:
    async def body(world: World) -> None:
        wires = Wires()
        node, client = wires.nodes[1], wires.pod(1, "10.4.1.9")
        listeners = [listen(wires.pod(which, address), 8080) for which, address in ((1, "10.4.1.2"), (2, "10.4.2.2"))]
        ports = [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": NODE_PORT}]
        await world.client.create(SERVICES, service("users", "10.8.0.20", type="NodePort", ports=ports))
        await world.client.create(ENDPOINT_SLICES, slice_of("users", "10.4.1.2", "10.4.2.2"))
        inside = Target(client, "10.8.0.20", 80, ("10.4.1.9",))
        outside = Target(wires.internet, "10.128.0.2", NODE_PORT, ("10.128.0.2", "10.4.1.1"))  # the node, or its bridge
        async with running(world, node.fd, proxy_mode=before):
            open_ = [(connect(target), accept(listeners)) for target in (inside, outside)]
        with flood([inside, outside], listeners) as flooded:
            async with running(world, node.fd, proxy_mode=after):
                await world.until(lambda: dialects(node.fd) == {after})
        for one, accepted in open_:
            assert accepted is not None
            one.sendall(b"?")
            assert accepted[0].recv(1) == b"?"
        assert [set(outcomes) for outcomes in flooded.found] == [{SERVED}, {SERVED}]
        cleanup.remove(CONFIG, node.fd)
        with flood([inside, outside], listeners) as flooded:
            pass
        assert not any(SERVED in outcomes for outcomes in flooded.found)

    in_loop(folder, body)


@pytest.mark.parametrize(("before", "after"), [(NFTABLES, IPTABLES), (IPTABLES, NFTABLES)])
def test_clients_are_kept_to_their_endpoints_when_the_dialect_is_changed(folder: Path, before: str, after: str) -> None:
    async def body(world: World) -> None:
        wires = Wires(("203.0.113.7",))
        node, endpoints = wires.nodes[1], ("10.4.1.2", "10.4.1.3", "10.4.2.2")
        for address in endpoints:
            wires.servers.open(wires.pod(int(address[5]), address), 8080)
        clients = [wires.pod(1, f"10.4.1.{number}") for number in range(10, 18)]
        ports = [{"name": "other", "port": 81, "targetPort": 8080}, {"name": "http", "port": 80, "targetPort": 8080}]
        kept = service("users", "10.8.0.20", sessionAffinity="ClientIP", externalTrafficPolicy="Local", type="NodePort", ports=ports)
        await world.client.create(SERVICES, kept)
        await world.client.create(SERVICES, service("others", "10.8.0.21", ports=ports))
        for name in ("users", "others"):
            piece = slice_of(name, *endpoints)
            piece["ports"] = [{"name": port["name"], "port": 8080, "protocol": "TCP"} for port in ports]
            await world.client.create(ENDPOINT_SLICES, piece)

        def who_serves(port: int) -> list[str]:
            return [ask(client, "10.8.0.20", port).split()[0] for client in clients]

        async with running(world, node.fd, proxy_mode=before):
            found = {port: who_serves(port) for port in (80, 81)}
            assert found[80] != found[81], "each port has clients of its own"
        for mode in (after, before):
            async with running(world, node.fd, proxy_mode=mode):
                await world.until(lambda mode=mode: dialects(node.fd) == {mode})  # type: ignore[misc]
                assert {port: who_serves(port) for port in found} == found
        cleanup.remove(CONFIG, node.fd)
        async with running(world, node.fd, proxy_mode=after):  # the control: who was forgotten chooses anew
            assert {port: who_serves(port) for port in found} != found

    in_loop(folder, body)


KUBE_PROXY = """\
table ip kube-proxy {
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
}
"""


@pytest.mark.parametrize("mode", [NFTABLES, IPTABLES])
def test_the_table_of_another_proxy_stays_and_is_told(folder: Path, mode: str) -> None:
    def nft(*words: str, text: str = "") -> str:
        return subprocess.run(["nft", *words], input=text, capture_output=True, text=True, check=True).stdout

    async def body(world: World) -> None:
        nft("-f", "-", text=KUBE_PROXY)
        said = Said()
        async with running(world, proxy_mode=mode):
            await world.until(lambda: any("table ip kube-proxy of another proxy translates, too" in words for words in said.words))
        cleanup.remove(CONFIG)
        assert (dialects(), nft("list", "table", "ip", "kube-proxy")) == (set(), KUBE_PROXY)

    in_loop(folder, body)


LEGACY = """\
*nat
:KUBE-SERVICES - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.8.0.20/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.4.0.9:8080
COMMIT
"""
OF_OTHERS = """\
*filter
:OF-OTHERS - [0:0]
COMMIT
"""
TOLD = "chains of another proxy in table ip nat of iptables-legacy act, too; `kube-proxy --cleanup` removes them"


@pytest.mark.parametrize("mode", [NFTABLES, IPTABLES])
def test_chains_of_the_older_iptables_stay_and_are_told(folder: Path, mode: str) -> None:
    def older(what: str, text: str = "") -> str:
        done = subprocess.run([f"iptables-legacy-{what}"], input=text, capture_output=True, text=True, check=True)
        return re.sub(r"#.*|\[[0-9:]+\]", "", done.stdout)

    has_tables = Path("/proc/net/ip_tables_names").exists()

    async def body(world: World) -> None:
        assert legacy.told() == []
        if not has_tables:
            return  # a kernel without the older iptables has nothing to be told of
        older("restore", OF_OTHERS)
        assert legacy.told() == [], "rules of others are nobody's concern"
        older("restore", LEGACY)
        assert legacy.told() == [TOLD]
        [words] = legacy.told(path=f"{folder}")
        assert "has tables (filter, nat)" in words
        assert words.endswith("iptables-legacy-save, which would show it, is not installed")
        said, before = Said(), older("save")
        async with running(world, proxy_mode=mode):
            await world.until(lambda: f"service proxy: {TOLD}" in said.words)
        cleanup.remove(CONFIG)
        assert (dialects(), older("save")) == (set(), before)

    in_loop(folder, body)


def both(order: tuple[str, str], *services: ServiceFrontends, **more: Any) -> tuple[Wires, list[Proxies], Mapping[str, Place]]:
    """The tables of both dialects at once, as in the middle of a switch."""
    dialect.chosen = order[0]
    wires, first, pods = world(*services, vips=(VIP,), **more)
    dialect.chosen = order[1]
    return wires, [first, Proxies(wires, *services, **more)], pods


@pytest.mark.parametrize("order", [(NFTABLES, IPTABLES), (IPTABLES, NFTABLES)])
def test_both_dialects_at_once_translate_once_and_masquerade_what_one_would(order: tuple[str, str]) -> None:
    users = service_of(("10.4.2.2", 2), node_port=NODE_PORT)
    local = service_of(("10.4.1.3", 1), ("10.4.2.2", 2), key="shop/local", ip="10.8.0.21", vips=(VIP,), external_local=True)
    itself = service_of(("10.4.1.2", 1), key="shop/itself", ip="10.8.0.22")
    wires, proxies, pods = both(order, users, local, itself, service_of(key="shop/empty", ip="10.8.0.23"))
    client = pods["10.4.1.9"]
    assert ask(client, "10.8.0.20", 80) == "10.4.2.2 10.4.1.9"
    assert ask(wires.nodes[1], "10.8.0.20", 80) == "10.4.2.2 10.128.0.2"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "10.4.2.2 10.128.0.2"
    assert ask(wires.internet, VIP, 80) == "10.4.1.3 198.51.100.10"
    assert ask(pods["10.4.1.2"], "10.8.0.22", 80) == "10.4.1.2 10.4.1.1"
    assert (ask(client, "10.8.0.23", 80), ask(client, "10.8.0.20", 81)) == ("refused", "refused")
    assert ask(client, "10.8.0.99", 80, limit_s=0.2) == "no answer"
    for one in proxies:
        one.remove()
    assert ask(client, "10.8.0.20", 80, limit_s=0.2) == "unreachable"


@pytest.mark.parametrize("order", [(NFTABLES, IPTABLES), (IPTABLES, NFTABLES)])
def test_both_dialects_at_once_masquerade_all_if_asked_to(order: tuple[str, str]) -> None:
    _, proxies, pods = both(order, service_of(("10.4.2.2", 2)), masquerade_all=True)
    assert ask(pods["10.4.1.9"], "10.8.0.20", 80) == "10.4.2.2 10.128.0.2"
    for one in proxies:
        one.remove()
    assert ask(pods["10.4.1.9"], "10.8.0.20", 80, limit_s=0.2) == "unreachable"


DYING = """
import importlib, os, signal, sys
from podwire.cli.main import entry
module, owner, name = sys.argv.pop(1).split(":")
found = importlib.import_module(module)
setattr(getattr(found, owner) if owner else found, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
entry()
"""
ASIDE, REMOVAL = "podwire.services.cleanup::set_aside_other_dialect", "podwire.services.cleanup::remove_other_dialect"
POINTS = {  # before what a new agent of a dialect dies
    NFTABLES: ("podwire.services.structure:Structure:hook", ASIDE, REMOVAL),
    IPTABLES: ("podwire.services.iptables.tables:IptablesTables:_load", ASIDE, REMOVAL),
}


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize(("before", "after"), [(NFTABLES, IPTABLES), (IPTABLES, NFTABLES)])
def test_an_agent_that_is_killed_within_a_switch_leaves_services_that_serve(folder: Path, before: str, after: str, *, back: bool) -> None:
    """The next agent, whichever words it speaks, goes on from there."""

    async def body(world: World) -> None:
        world.network.apply([add(Address("lo", host("10.4.0.2"))), add(Route(IPv4Network("10.8.0.0/20"), link="lo"))])
        await world.client.create(SERVICES, service("users", "10.8.0.20"))
        await world.client.create(ENDPOINT_SLICES, slice_of("users", "10.4.0.2"))
        with socket.create_server(("10.4.0.2", 8080)):
            for point in POINTS[after]:
                async with running(world, proxy_mode=before):
                    await world.until(lambda: dialects() == {before})
                (folder / "config").write_bytes(msgspec.json.encode(msgspec.structs.replace(CONFIG, proxy_mode=after)))
                options = ["--kubeconfig", world.kubeconfig, "--node", "node-1", "--config", f"{folder}/config"]
                dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, point, "agent", "services", *options)
                assert await dying.wait() == -signal.SIGKILL, point
                socket.create_connection(("10.8.0.20", 80)).close()
                async with running(world, proxy_mode=before if back else after):
                    await world.until(lambda: dialects() == {before if back else after})
                    socket.create_connection(("10.8.0.20", 80)).close()
            cleanup.remove(CONFIG)
            with pytest.raises(TimeoutError):
                socket.create_connection(("10.8.0.20", 80), timeout=0.2)

    in_loop(folder, body)
