"""Service addresses in real namespaces, with real packets. Every test has its control: without the table it fails."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from kernel.services import dialect
from kernel.services.dialect import NFTABLES
from kernel.services.wires import CONTROLS, Wires, ask, spread
from podwire import nft
from podwire.daemon.config import AgentConfig
from podwire.linux import namespaces
from podwire.linux.network import Network
from podwire.nft.datatypes import HOST
from podwire.services import desired, routes
from podwire.services.agent import masquerade_pods
from podwire.services.iptables.tables import IptablesTables
from podwire.services.layout import IPV4, Family
from podwire.services.tables import Tables
from podwire.views.backends import Backend
from podwire.views.frontends import Frontend, ServiceFrontends
from podwire.views.topology import Place

CONFIG = AgentConfig(
    pod_ranges=("10.4.0.0/14", "fd00:10:4::/56"),
    service_ranges=("10.8.0.0/20", "fd00:10:8::/108"),
    node_ranges=("10.128.0.0/20", "fd00:10:128::/64"),
    control_range="10.127.0.0/28",
)
IP, PORT, NODE_PORT, VIP = "10.8.0.20", 80, 30080, "203.0.113.7"
ENDPOINTS = (("10.4.1.2", 1), ("10.4.1.3", 1), ("10.4.2.2", 2))


def service(
    *endpoints: tuple[str, int], key: str = "shop/users", ip: str = IP, protocol: str = "TCP", node_port: int = 0, **more: Any
) -> ServiceFrontends:
    rows = tuple(Backend(address, 8080, f"node-{node}", pod=f"shop/{address}") for address, node in endpoints)
    external, vips = more.pop("external_ips", ()), more.pop("vips", ())
    return ServiceFrontends(key, (ip,), external, vips, (Frontend("http", protocol, PORT, node_port, rows),), **more)


class Proxies:
    """The tables of both nodes, without an API: what the agent calls."""

    def __init__(
        self,
        wires: Wires,
        *services: ServiceFrontends,
        family: Family = IPV4,
        pod_ranges: tuple[str, ...] = CONFIG.pod_ranges,
        service_ranges: tuple[str, ...] = CONFIG.service_ranges,
        **more: Any,
    ) -> None:
        self.wires, self.family, self.ranges, self.more = wires, family, (pod_ranges, service_ranges), more
        self.tables = {which: self._tables(which) for which in wires.nodes}
        for tables in self.tables.values():
            for _ in tables.start({}):
                pass
        self.put(*services)

    def _tables(self, which: int) -> Any:
        make = Tables if dialect.chosen == NFTABLES else IptablesTables
        return make(self.family, f"node-{which}", *self.ranges, self.wires.nodes[which].fd, **self.more)

    def put(self, *services: ServiceFrontends, gone: tuple[str, ...] = ()) -> None:
        for which, tables in self.tables.items():
            place = Place(f"node-{which}", f"zone-{which}")
            changes: dict[str, desired.ServiceProgram | None] = {s.key: desired.program(s, place, self.family.number) for s in services}
            if CONTROLS:
                tables.remove()
                continue
            tables.update(changes | dict.fromkeys(gone))
            tables.expire(tables.round)

    def remove(self) -> None:
        for tables in self.tables.values():
            tables.remove()


def world(*services: ServiceFrontends, vips: tuple[str, ...] = (), **more: Any) -> tuple[Wires, Proxies, Mapping[str, Any]]:
    wires = Wires(vips)
    pods = {address: wires.pod(node, address) for address, node in (*ENDPOINTS, ("10.4.1.9", 1), ("10.4.2.9", 2))}
    for address, _ in ENDPOINTS:
        wires.servers.open(pods[address], 8080)
        wires.servers.open(pods[address], 8080, udp=True)
    return wires, Proxies(wires, *services, **more), pods


def test_a_cluster_address_leads_to_all_endpoints_and_they_see_the_pod() -> None:
    _, proxies, pods = world(service(*ENDPOINTS))
    for client in ("10.4.1.9", "10.4.2.9"):
        assert set(spread(pods[client], IP, PORT, 40)) == {address for address, _ in ENDPOINTS}
        assert ask(pods[client], IP, PORT).split()[1] == client
    proxies.remove()
    assert ask(pods["10.4.1.9"], IP, PORT, limit_s=0.2) == "unreachable"


def test_udp_and_sctp_are_known() -> None:
    _, proxies, pods = world(service(*ENDPOINTS, protocol="UDP"), service(*ENDPOINTS, key="shop/s", ip="10.8.0.21", protocol="SCTP"))
    assert set(spread(pods["10.4.1.9"], IP, PORT, 40, udp=True)) == {address for address, _ in ENDPOINTS}
    assert ask(pods["10.4.1.9"], IP, PORT) == "refused"  # the port is UDP only
    proxies.remove()
    assert ask(pods["10.4.1.9"], IP, PORT, udp=True, limit_s=0.2) in ("unreachable", "no answer")


def test_the_choice_is_uniform() -> None:
    _, _, pods = world(service(*ENDPOINTS))
    found = spread(pods["10.4.1.9"], IP, PORT, 600)
    # 99.99 % of uniform samples stay below this chi-square with two degrees of freedom.
    assert sum((found[address] - 200) ** 2 / 200 for address, _ in ENDPOINTS) < 18.4


def test_a_pod_reaches_itself_through_its_service() -> None:
    _, proxies, pods = world(service(("10.4.1.2", 1)))
    answer = ask(pods["10.4.1.2"], IP, PORT)
    assert answer == "10.4.1.2 10.4.1.1"  # masqueraded as the bridge
    proxies.remove()
    assert ask(pods["10.4.1.2"], IP, PORT, limit_s=0.2) == "unreachable"


def test_the_node_itself_uses_services() -> None:
    wires, proxies, _ = world(service(*ENDPOINTS))
    assert set(spread(wires.nodes[1], IP, PORT, 40)) == {address for address, _ in ENDPOINTS}
    proxies.remove()
    assert ask(wires.nodes[1], IP, PORT, limit_s=0.2) == "unreachable"


def test_node_ports_from_everywhere() -> None:
    wires, proxies, pods = world(service(("10.4.1.2", 1), ("10.4.2.2", 2), node_port=NODE_PORT))
    both = {"10.4.1.2", "10.4.2.2"}
    for place in (wires.internet, pods["10.4.1.9"], wires.nodes[1]):
        for node in ("10.128.0.2", "10.128.0.3"):
            assert set(spread(place, node, NODE_PORT, 16)) == both, (place.name, node)
    assert ask(wires.nodes[1], "127.0.0.1", NODE_PORT) == "refused"
    proxies.remove()
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "refused"


def test_a_load_balancer_address_and_an_external_address() -> None:
    wires, proxies, pods = world(service(("10.4.2.2", 2), vips=(VIP,), external_ips=("192.0.2.80",)), vips=(VIP, "192.0.2.80"))
    for address in (VIP, "192.0.2.80"):
        assert ask(wires.internet, address, PORT) == "10.4.2.2 10.128.0.2"
        assert ask(pods["10.4.2.9"], address, PORT).startswith("10.4.2.2 ")
    proxies.remove()
    assert ask(wires.internet, VIP, PORT, limit_s=0.2) in ("no answer", "unreachable")


def test_a_load_balancer_address_is_local_on_the_node() -> None:
    wires, _, _ = world(service(("10.4.1.2", 1), vips=(VIP,), node_port=NODE_PORT), vips=(VIP,))
    node = wires.nodes[1]
    before = ask(wires.internet, VIP, 81, limit_s=0.3)
    assert before != "refused"  # it goes round between node and fabric
    with Network(node.fd) as network:
        network.apply(routes.changes(network.routes(routes.LOCAL), [VIP]))
        assert ask(wires.internet, VIP, 81) == "refused"
        assert ask(wires.internet, VIP, PORT).startswith("10.4.1.2 ")
        assert routes.changes(network.routes(routes.LOCAL), [VIP]) == []
        network.apply(routes.changes(network.routes(routes.LOCAL), []))
        assert not [route for route in network.routes(routes.LOCAL) if route.protocol == routes.PROTOCOL]


def test_local_policy_keeps_the_client_and_pods_go_everywhere() -> None:
    here = service(("10.4.1.2", 1), ("10.4.2.2", 2), vips=(VIP,), node_port=NODE_PORT, external_local=True)
    wires, proxies, pods = world(here, vips=(VIP,))
    assert {ask(wires.internet, VIP, PORT) for _ in range(10)} == {"10.4.1.2 198.51.100.10"}
    assert {ask(wires.internet, "10.128.0.3", NODE_PORT) for _ in range(10)} == {"10.4.2.2 198.51.100.10"}
    for place in (pods["10.4.1.9"], wires.nodes[1]):
        assert set(spread(place, VIP, PORT, 24)) == {"10.4.1.2", "10.4.2.2"}
    proxies.put(service(("10.4.2.2", 2), vips=(VIP,), node_port=NODE_PORT, external_local=True))
    assert ask(wires.internet, VIP, PORT, limit_s=0.3) == "no answer"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT, limit_s=0.3) == "no answer"
    assert ask(pods["10.4.1.9"], VIP, PORT).startswith("10.4.2.2 ")


def test_internal_local_policy() -> None:
    _, proxies, pods = world(service(("10.4.1.2", 1), ("10.4.2.2", 2), internal_local=True))
    assert set(spread(pods["10.4.1.9"], IP, PORT, 12)) == {"10.4.1.2"}
    assert set(spread(pods["10.4.2.9"], IP, PORT, 12)) == {"10.4.2.2"}
    proxies.put(service(("10.4.2.2", 2), internal_local=True))
    assert ask(pods["10.4.1.9"], IP, PORT, limit_s=0.3) == "no answer"


def test_what_is_refused_and_what_is_dropped() -> None:
    wires, proxies, pods = world(
        service(node_port=NODE_PORT, vips=(VIP,)), service(key="shop/u", ip="10.8.0.21", protocol="UDP"), vips=(VIP,)
    )
    client = pods["10.4.1.9"]
    for place in (client, wires.nodes[1]):
        assert ask(place, IP, PORT) == "refused"
        assert ask(place, "10.8.0.21", PORT, udp=True) == "refused"
        assert ask(place, IP, 81) == "refused"
        assert ask(place, IP, 81, udp=True) == "refused"
        assert ask(place, "10.8.0.99", PORT, limit_s=0.2) == "no answer"
    assert ask(wires.internet, VIP, PORT) == "refused"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "refused"
    proxies.remove()
    assert ask(client, IP, PORT, limit_s=0.2) == "unreachable"


def test_source_ranges_guard_load_balancer_addresses_alone() -> None:
    ranges = ("198.51.100.0/24", "198.51.100.0/25", "10.9.0.0/16")
    guarded = service(("10.4.1.2", 1), vips=(VIP,), node_port=NODE_PORT, source_ranges=ranges)
    wires, proxies, pods = world(guarded, vips=(VIP,))
    assert ask(wires.internet, VIP, PORT).startswith("10.4.1.2")
    assert ask(pods["10.4.1.9"], VIP, PORT, limit_s=0.3) == "no answer"
    proxies.put(service(("10.4.1.2", 1), vips=(VIP,), node_port=NODE_PORT, source_ranges=("10.9.0.0/16",)))
    assert ask(wires.internet, VIP, PORT, limit_s=0.3) == "no answer"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT).startswith("10.4.1.2")
    for overlapping in (("198.0.0.0/8",), ("198.51.0.0/16",), ("198.51.100.10/32", "198.51.128.0/17"), ("0.0.0.0/0",)):
        proxies.put(service(("10.4.1.2", 1), vips=(VIP,), node_port=NODE_PORT, source_ranges=overlapping))
        assert ask(wires.internet, VIP, PORT).startswith("10.4.1.2"), overlapping
    proxies.remove()
    assert not ask(wires.internet, VIP, PORT, limit_s=0.2).startswith("10.4.1.2")


@pytest.mark.nftables
def test_nobody_is_shut_out_while_one_source_range_is_exchanged_for_thousands_within_it() -> None:
    def guarded(*ranges: str) -> ServiceFrontends:
        return service(("10.4.1.2", 1), vips=(VIP,), source_ranges=ranges)

    whole, parts = ("198.0.0.0/8",), ("198.51.100.0/24", *(f"198.{i // 256}.{i % 256}.0/25" for i in range(4000)))
    wires, proxies, _ = world(guarded(*whole), vips=(VIP,))
    answers = [ask(wires.internet, VIP, PORT)]
    done = threading.Event()

    def client() -> None:
        # No port is used twice: the kernel would choose one again after three thousand, and its old connection may still be remembered.
        for source in range(2_000, 65_000):
            if done.is_set():
                return
            answers.append(ask(wires.internet, VIP, PORT, source=source))

    asking = threading.Thread(target=client)
    asking.start()
    try:
        for ranges in (parts, whole, parts, whole):
            proxies.put(guarded(*ranges))
    finally:
        done.set()
        asking.join()
    assert {answer.split()[0] for answer in answers} == {"10.4.1.2"}
    proxies.put(guarded(*parts[1:]))
    assert ask(wires.internet, VIP, PORT, limit_s=0.3) == "no answer"


def test_affinity_is_kept_until_the_endpoint_goes() -> None:
    _, proxies, pods = world(service(*ENDPOINTS, affinity_s=3600))
    client = pods["10.4.1.9"]
    [first] = spread(client, IP, PORT, 20)
    proxies.put(service(*(e for e in ENDPOINTS if e[0] != first), affinity_s=3600))
    [second] = spread(client, IP, PORT, 20)
    assert second != first
    proxies.put(service(*ENDPOINTS, affinity_s=3600))
    assert set(spread(client, IP, PORT, 20)) == {second}
    proxies.put(service(*ENDPOINTS))
    assert len(spread(client, IP, PORT, 40)) == 3


def test_endpoints_come_and_go_while_connections_are_made() -> None:
    _, proxies, pods = world(service(*ENDPOINTS))
    for left in (ENDPOINTS[:2], ENDPOINTS[1:], ENDPOINTS[:1], ENDPOINTS, ENDPOINTS[2:]):
        proxies.put(service(*left))
        assert set(spread(pods["10.4.1.9"], IP, PORT, 30)) == {address for address, _ in left}
    proxies.put(gone=("shop/users",))
    assert ask(pods["10.4.1.9"], IP, PORT, limit_s=0.2) == "no answer"


@dialect.of_nftables
def test_a_new_process_adopts_the_table_and_changes_nothing() -> None:
    many = [
        service(*ENDPOINTS, affinity_s=600),
        service(*ENDPOINTS[:2], key="shop/b", ip="10.8.0.21", node_port=NODE_PORT, external_local=True),
    ]
    wires, proxies, pods = world(*many)
    [first] = spread(pods["10.4.1.9"], IP, PORT, 10)
    with nft_of(wires) as kernel:
        before, generation = kernel.dump(), kernel.generation()
        again = proxies._tables(1)
        wanted = {s.key: p for s in many if (p := desired.program(s, Place("node-1"))) is not None}
        for _ in again.start(wanted):
            pass
        assert kernel.generation() == generation
        assert kernel.dump() == before
        assert set(spread(pods["10.4.1.9"], IP, PORT, 10)) == {first}
        again.update({"shop/b": None})
        again.expire(again.round)
        ids = {
            int.from_bytes(e.value, HOST) for e in kernel.dump().tables[0].set("frontends").elements.values() if isinstance(e.value, bytes)
        }
        again.update({"shop/c": desired.program(service(*ENDPOINTS, key="shop/c", ip="10.8.0.22"), Place("node-1"))})
        after = {
            int.from_bytes(e.value, HOST) for e in kernel.dump().tables[0].set("frontends").elements.values() if isinstance(e.value, bytes)
        }
        assert min(after - ids) >= max(ids)


def nft_of(wires: Wires) -> Any:
    from podwire.linux.nftables import Nftables

    return Nftables(wires.nodes[1].fd)


@dialect.of_nftables
def test_a_damaged_or_foreign_table_is_built_anew() -> None:
    wires, proxies, pods = world(service(*ENDPOINTS))
    tables = proxies.tables[1]
    with nft_of(wires) as kernel:
        kernel.apply([nft.DeleteTable(("ip", tables.name))])
        try:
            proxies.put(service(*ENDPOINTS[:2]))
        except OSError:
            proxies.put(service(*ENDPOINTS[:2]))
        assert set(spread(pods["10.4.1.9"], IP, PORT, 20)) == {"10.4.1.2", "10.4.1.3"}
        kernel.apply([nft.FlushChain(("ip", tables.name), "services")])
        again = proxies._tables(1)
        program = desired.program(service(*ENDPOINTS), Place("node-1"))
        assert program is not None
        for _ in again.start({program.key: program}):
            pass
        assert len(kernel.dump().tables) == 1
        assert set(spread(pods["10.4.1.9"], IP, PORT, 40)) == {address for address, _ in ENDPOINTS}


@dialect.of_nftables
def test_a_table_that_gets_full_moves_to_a_larger_one() -> None:
    wires, proxies, pods = world(service(*ENDPOINTS, affinity_s=600))
    [first] = spread(pods["10.4.1.9"], IP, PORT, 10)
    crowd = tuple((f"10.5.{i}.{j}", 3) for i in range(60) for j in range(220))
    proxies.put(service(*crowd, key="shop/crowd", ip="10.8.0.50"))
    assert proxies.tables[1].name == "podwire-services-2"
    assert set(spread(pods["10.4.1.9"], IP, PORT, 10)) == {first}
    with nft_of(wires) as kernel:
        [table] = kernel.dump().tables
        assert table.set("backends").size > 16384


@dialect.of_nftables
def test_what_is_programmed_lists_and_loads_again() -> None:
    wires, _, _ = world(
        service(
            *ENDPOINTS, affinity_s=600, vips=(VIP,), node_port=NODE_PORT, external_local=True, source_ranges=("10.0.0.0/8", "192.0.2.0/25")
        ),
        service(key="shop/empty", ip="10.8.0.21"),
    )
    masquerade_pods(CONFIG, (IPV4,), wires.nodes[1].fd)

    def run(command: str, text: str = "") -> str:
        return subprocess.run(command, shell=True, input=text, capture_output=True, text=True, check=True).stdout

    def inside() -> Iterator[str]:
        listed = run("nft -s list ruleset")
        yield listed
        run("nft flush ruleset")
        run("nft -f -", listed)
        yield run("nft -s list ruleset")

    first, second = namespaces.inside(wires.nodes[1].fd, lambda: tuple(inside()))
    assert first == second
    assert '10.8.0.20 . tcp . 80 comment "shop/users:http/TCP" : 0x' in first
    assert '"shop/users:http/TCP shop/10.4.1.2"' in first


@dialect.of_nftables
def test_pods_leave_the_cluster_with_the_address_of_their_node() -> None:
    wires, _, pods = world()
    wires.servers.open(wires.internet, 7000)
    before = ask(pods["10.4.1.9"], "198.51.100.10", 7000)
    assert before == "internet 10.4.1.9"
    if not CONTROLS:
        masquerade_pods(CONFIG, (IPV4,), wires.nodes[1].fd)
    assert ask(pods["10.4.1.9"], "198.51.100.10", 7000) == "internet 10.128.0.2"
    assert ask(pods["10.4.1.9"], "10.4.2.2", 8080) == "10.4.2.2 10.4.1.9"
    with nft_of(wires) as kernel:
        generation = kernel.generation()
        masquerade_pods(CONFIG, (IPV4,), wires.nodes[1].fd)
        assert kernel.generation() == generation
