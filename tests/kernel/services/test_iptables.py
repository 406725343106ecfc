"""The dialect iptables by itself: what is written is what is read back, repair, clean-up, many Services at random."""

from __future__ import annotations

import asyncio
import random
import subprocess

import msgspec
import pytest

from kernel.services.flood import SERVED, Target, flood, listen
from kernel.services.test_agent import LIMIT_S, World, in_loop, slice_of
from kernel.services.test_agent import service as manifest
from kernel.services.test_beside import fetch, running
from kernel.services.test_packets import CONFIG, ENDPOINTS, IP, NODE_PORT, PORT, VIP, service, world
from kernel.services.wires import Wires, ask, spread
from podwire.linux import namespaces
from podwire.linux.network import Network
from podwire.objects.resources import ENDPOINT_SLICES, EVENTS, SERVICES
from podwire.services import desired
from podwire.services.desired import ServiceProgram
from podwire.services.iptables import affinity
from podwire.services.iptables.affinity import Chains, Table
from podwire.services.iptables.rules import FILTER, JUMPS, chain_name
from podwire.services.iptables.tables import IptablesTables
from podwire.services.layout import IPV4, IPV6, Family
from podwire.services.tables import Tables
from podwire.views.backends import Backend
from podwire.views.frontends import Frontend, ServiceFrontends
from podwire.views.topology import Place
from podwire.wire.rtnetlink import Link, change

PLACE = Place("node-1", "zone-1")


def tables_here(family: Family = IPV4, namespace: int | None = None) -> IptablesTables:
    with Network(namespace) as network:
        network.apply([change(Link("lo", up=True))])
    return IptablesTables(family, "node-1", CONFIG.pod_ranges, CONFIG.service_ranges, namespace)


def decided(*views: ServiceFrontends) -> dict[str, ServiceProgram]:
    found = {view.key: desired.program(view, PLACE) for view in views}
    return {key: program for key, program in found.items() if program is not None}


def start(tables: IptablesTables | Tables, wanted: dict[str, ServiceProgram]) -> None:
    for _ in tables.start(wanted):
        pass


def at_random(draw: random.Random, number: int) -> ServiceFrontends:
    endpoints = [(f"10.4.{draw.randint(1, 3)}.{draw.randint(2, 99)}", draw.randint(1, 3)) for _ in range(draw.randint(0, 7))]
    return service(
        *dict(endpoints).items(),
        key=f"shop/s{number}",
        ip=f"10.8.1.{number}",
        protocol=draw.choice(("TCP", "UDP", "SCTP")),
        node_port=draw.choice((0, 30000 + number)),
        vips=draw.choice(((), (f"203.0.113.{number}",))),
        external_ips=draw.choice(((), ("192.0.2.80",))),
        external_local=draw.random() < 0.3,
        internal_local=draw.random() < 0.3,
        affinity_s=draw.choice((0, 0, 600)),
        source_ranges=draw.choice(((), ("10.0.0.0/8", "10.1.0.0/16"), ("0.0.0.0/0",))),
    )


def test_what_is_read_back_is_what_was_written_after_any_changes() -> None:
    draw = random.Random(7)
    tables = tables_here()
    start(tables, {})
    wanted: dict[str, ServiceProgram] = {}
    for _ in range(12):
        changes: dict[str, ServiceProgram | None] = {}
        for number in draw.sample(range(1, 25), 6):
            view = at_random(draw, number)
            changes[view.key] = None if draw.random() < 0.3 else decided(view)[view.key]
        tables.update(changes)
        wanted = {key: program for key, program in (wanted | changes).items() if program is not None}
        have = tables.dump(tables._generations)
        assert tables.findings(have) == []
        anew = tables_here()
        generation = anew._generations.generation()
        start(anew, wanted)
        assert anew._generations.generation() == generation, "a new process changes nothing"
        assert anew.dump(anew._generations) == have
        anew.close()


def test_what_is_its_own_endpoint_is_read_back_as_it_was_written() -> None:
    """A Service whose endpoint has its external address, load balancer's address and node port, in each family."""
    for family, ip, address in ((IPV4, "10.8.0.30", "10.128.0.2"), (IPV6, "fd00:10:8::30", "fd00:10:128::2")):
        ports = (Frontend("http", "TCP", NODE_PORT, NODE_PORT, (Backend(address, NODE_PORT, ""),)),)
        plain = ServiceFrontends("shop/host", (ip,), (address,), (), ports)
        guarded = msgspec.structs.replace(plain, external_ips=(), load_balancer_ips=(address,), source_ranges=("192.0.2.0/24", "::/0"))
        tables = tables_here(family)
        start(tables, {})
        for view in (plain, guarded):
            for local in (True, False):
                tables.update({view.key: desired.program(msgspec.structs.replace(view, external_local=local), PLACE, family.number)})
                have = tables.dump(tables._generations)
                assert tables.findings(have) == []
                assert any("is its own endpoint" in line for line in have[FILTER, "KUBE-EXTERNAL-SERVICES"])
        tables.close()


def test_more_than_one_transaction_of_an_ordinary_user_holds() -> None:
    """Hundreds of Services, and one of hundreds of endpoints, as they come, change and go."""
    tables = tables_here()
    crowd = [(f"10.4.{i}.{j}", i) for i in (1, 2) for j in range(1, 130)]

    def many(count: int, *endpoints: tuple[str, int], affinity_s: int = 0) -> dict[str, ServiceProgram]:
        views = [service(*ENDPOINTS, key=f"shop/s{n}", ip=f"10.8.{n >> 8}.{n & 255}", vips=(f"203.0.113.{n % 250}",)) for n in range(count)]
        return decided(service(*endpoints, affinity_s=affinity_s), *views)

    start(tables, many(300, *crowd))
    assert tables.findings(tables.dump(tables._generations)) == []
    for wanted in (
        many(300, *crowd[:-1]),  # every probability is another
        many(300, *crowd[1:], affinity_s=60),
        many(299, *crowd[1:]),
        many(40, *crowd[1:]) | decided(service(*ENDPOINTS, key="shop/a-first", ip="10.8.9.9")),
        many(250, *crowd[1:]),
    ):
        tables.update(dict.fromkeys(tables._ports) | wanted)
        assert tables.findings(tables.dump(tables._generations)) == []
    anew = tables_here()
    start(anew, many(251, *crowd[1:]))
    assert anew.findings(anew.dump(anew._generations)) == []
    assert anew.remove()
    assert anew.dump(anew._generations) == {}


def test_long_chains_are_whole_while_they_change() -> None:
    wires = Wires()
    client, server = wires.pod(1, "10.4.1.9"), wires.pod(1, "10.4.1.2")
    listeners = [listen(server, port) for port in range(9000, 9180)]
    tables = tables_here(namespace=wires.nodes[1].fd)

    def wanted(endpoints: int, others: int) -> dict[str, ServiceProgram]:
        rows = tuple(Backend("10.4.1.2", port, "node-1") for port in range(9000, 9000 + endpoints))
        crowded = ServiceFrontends("shop/users", (IP,), (), (), (Frontend("http", "TCP", PORT, 0, rows),))
        return decided(crowded, *(service(*ENDPOINTS, key=f"shop/a{n}", ip=f"10.8.2.{n}") for n in range(others)))

    start(tables, wanted(180, 0))
    with flood([Target(client, IP, PORT, ("10.4.1.9",))], listeners) as flooded:
        for endpoints, others in ((170, 200), (180, 10), (160, 199)):
            tables.update(dict.fromkeys(tables._ports) | wanted(endpoints, others))
    assert [set(outcomes) for outcomes in flooded.found] == [{SERVED}]
    tables.remove()
    with flood([Target(client, IP, PORT, ("10.4.1.9",))], listeners) as flooded:
        pass
    assert not any(SERVED in outcomes for outcomes in flooded.found)


def test_what_is_read_back_in_the_second_family() -> None:
    tables = tables_here(IPV6)
    view = service(("fd00:10:4:1::2", 1), ("fd00:10:4:1::9", 1), ip="fd00:10:8::20", node_port=NODE_PORT, affinity_s=60)
    program = desired.program(view, PLACE, 6)
    assert program is not None
    start(tables, {program.key: program})
    assert tables.findings(tables.dump(tables._generations)) == []


@pytest.mark.parametrize("pods", [("0.0.0.0/0",), ("10.4.0.0/14", "10.20.0.0/14"), ()])
@pytest.mark.parametrize("services", [("0.0.0.0/0",), ()])
def test_ranges_of_all_addresses_and_none(pods: tuple[str, ...], services: tuple[str, ...]) -> None:
    tables = IptablesTables(IPV4, "node-1", pods, services, node_port_ranges=("10.0.0.0/8", "0.0.0.0/0"))
    view = service(*ENDPOINTS, node_port=NODE_PORT, vips=(VIP,), external_local=True, source_ranges=("0.0.0.0/0",))
    start(tables, decided(view, service(key="shop/empty", ip="10.8.0.21")))
    assert tables.findings(tables.dump(tables._generations)) == []


def test_every_change_by_another_hand_is_found_and_put_right() -> None:
    tables = tables_here()
    wanted = decided(service(*ENDPOINTS), service(key="shop/empty", ip="10.8.0.21"))
    start(tables, wanted)
    whole = tables.dump(tables._generations)
    chain = next(name for table, name in whole if name.startswith("KUBE-SVC-"))
    by_hand = [
        f"*nat\n-F {chain}\nCOMMIT\n",
        "*filter\n-D KUBE-SERVICES 1\nCOMMIT\n",
        "*nat\n-D PREROUTING 1\nCOMMIT\n",
        "*nat\n:KUBE-SVC-OF-NOBODY - [0:0]\nCOMMIT\n",
        "*filter\n-I KUBE-SERVICES -d 10.8.0.20/32 -j DROP\nCOMMIT\n",
    ]
    for text in by_hand:
        tables._run([tables._restore, "--noflush"], text)
        assert tables.findings(tables.dump(tables._generations)), text
        tables.distrust()
        tables.update({})
        assert tables.dump(tables._generations) == whole, text


def test_the_rules_of_others_stay_and_off_means_gone() -> None:
    tables = tables_here()
    theirs = "*nat\n:THEIRS - [0:0]\n-A PREROUTING -p tcp -m tcp --dport 7 -j THEIRS\nCOMMIT\n"
    tables._run([tables._restore, "--noflush"], theirs)
    start(tables, decided(service(*ENDPOINTS)))
    assert tables.remove()
    assert tables.dump(tables._generations) == {}
    saved = tables._run([tables._save])
    assert "-A PREROUTING -p tcp -m tcp --dport 7 -j THEIRS" in saved
    assert "KUBE-" not in saved
    assert tables.remove() == []


# As a kubelet, a network policy and a plugin for host ports write them; the last leads to a chain of the service proxy.
THEIRS = """\
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-POD-FW-ABC - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -s 10.4.0.9/32 -j KUBE-POD-FW-ABC
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP
COMMIT
*nat
:KUBE-MARK-DROP - [0:0]
:KUBE-MARK-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j KUBE-MARK-MASQ
COMMIT
"""

# What kube-proxy has besides in its mode iptables, and an older one had.
KUBE_PROXYS = """\
*filter
:KUBE-NODEPORTS - [0:0]
-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m tcp --dport 32123 -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-XLB-AAAAAAAAAAAAAAAA - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.8.0.9/32 -p tcp -m tcp --dport 9 -j KUBE-SVC-AAAAAAAAAAAAAAAA
-A KUBE-SERVICES -d 192.0.2.9/32 -p tcp -m tcp --dport 9 -j KUBE-XLB-AAAAAAAAAAAAAAAA
COMMIT
"""


def lines(text: str) -> set[str]:
    """The chains and rules of a listing or a restore, without counters and built-in chains."""
    return {line.split(" [")[0] for line in text.splitlines() if line.startswith("-A") or (line.startswith(":") and " ACCEPT " not in line)}


def test_chains_of_others_that_begin_alike_stay_as_they_are() -> None:
    tables = tables_here()
    tables._run([tables._restore, "--noflush"], THEIRS)
    before = tables._run([tables._save])
    start(tables, decided(service(*ENDPOINTS)))
    assert lines(before) <= lines(tables._run([tables._save]))
    assert tables.findings(tables.dump(tables._generations)) == [], "nothing of it is taken for damage"
    tables.distrust()
    tables.update({"shop/users": None})
    tables.remove()
    assert lines(tables._run([tables._save])) == lines(before)
    assert tables.remove() == []


def test_what_kube_proxy_left_is_taken_over_and_goes() -> None:
    tables = tables_here()
    start(tables, decided(service(*ENDPOINTS)))
    whole = lines(tables._run([tables._save]))
    tables.remove()
    for text in (KUBE_PROXYS, THEIRS):
        tables._run([tables._restore, "--noflush"], text)
    start(tables, decided(service(*ENDPOINTS)))
    assert lines(tables._run([tables._save])) == whole | lines(THEIRS)
    tables.remove()
    tables._run([tables._restore, "--noflush"], KUBE_PROXYS)
    assert tables.remove() == ["chains of table ip filter: 1", "chains of table ip nat: 3"]
    assert lines(tables._run([tables._save])) == lines(THEIRS)


def test_every_jump_is_in_place_once() -> None:
    tables = tables_here()
    start(tables, {})
    start(tables, {})
    have = tables.dump(tables._generations)
    assert {chain: lines for chain, lines in have.items() if chain in JUMPS} == dict(JUMPS)


def test_connections_go_on_while_another_dialect_takes_over() -> None:
    _, proxies, pods = world(service(*ENDPOINTS, vips=(VIP,)))
    assert set(spread(pods["10.4.1.9"], IP, PORT, 30)) == set(dict(ENDPOINTS))
    for which, place in proxies.wires.nodes.items():
        proxies.tables[which].remove()
        tables = tables_here(namespace=place.fd)
        start(tables, decided(service(*ENDPOINTS, vips=(VIP,))))
        proxies.tables[which] = tables
    assert set(spread(pods["10.4.1.9"], IP, PORT, 30)) == set(dict(ENDPOINTS))
    saved = namespaces.inside(proxies.wires.nodes[1].fd, lambda: proxies.tables[1]._run([proxies.tables[1]._save]))
    assert '"shop/users:http -> 10.4.1.2:8080"' in saved
    proxies.remove()
    assert ask(pods["10.4.1.9"], IP, PORT, limit_s=0.2) == "unreachable"


@pytest.mark.parametrize(("family", "ip", "clients"), [(IPV4, IP, "10.4.9.{}"), (IPV6, "fd00:10:8::20", "fd00:10:4:9::{}")])
def test_who_is_kept_where_is_told_in_either_words(family: Family, ip: str, clients: str) -> None:
    """A client that is in two lists counts where it was seen last; one that is known already stays."""
    addresses = ("10.4.1.2", "10.4.1.3") if family is IPV4 else ("fd00:10:4:1::2", "fd00:10:4:1::3")
    view = service(*((address, 1) for address in addresses), ip=ip, affinity_s=600, internal_local=True, node_port=NODE_PORT)
    program = desired.program(view, PLACE, family.number)
    assert program is not None
    written, numbered = tables_here(family), Tables(family, "node-1", CONFIG.pod_ranges, CONFIG.service_ranges)
    for tables in (numbered, written):
        start(tables, {program.key: program})
    one, other, third = (clients.format(number) for number in (1, 2, 3))

    def lists() -> dict[str, set[str]]:
        chains = Chains(written.dump(written._generations))
        return {kept.client: {kept.endpoint[0]} for kept in chains.kept(affinity._read(chains.lists))}

    def remembered() -> dict[str, set[str]]:
        table = Table(family, written._generations.dump([numbered.id]).tables[0])
        return {kept.client: {kept.endpoint[0]} for kept in table.kept()}

    first, second = (chain_name("SEP", "shop/users:http", "TCP", f"[{a}]:8080" if ":" in a else f"{a}:8080") for a in addresses)
    affinity._write([(first, one), (first, other)])
    affinity._write([(second, other)])
    affinity.carry_over("nftables")
    known = {one: {addresses[0]}, other: {addresses[1]}}
    assert remembered() == lists() == known
    affinity._write([(second, one), (second, third)])
    affinity.carry_over("nftables")
    assert remembered() == known | {third: {addresses[1]}}
    written.remove()
    start(written, {program.key: program})
    assert lists() == {}
    affinity.carry_over("iptables")
    assert lists() == remembered()
    numbered.remove()
    affinity.carry_over("iptables")
    assert lists() == known | {third: {addresses[1]}}


def saved() -> str:
    return subprocess.run(["iptables-nft-save"], capture_output=True, text=True, check=True).stdout


def flush() -> None:
    subprocess.run(["iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES"], check=True)


def test_the_agent_speaks_either_removes_the_other_and_puts_right_what_somebody_changes(tmp_path_factory: pytest.TempPathFactory) -> None:
    async def body(world: World) -> None:
        await world.client.create(SERVICES, manifest("users", "10.8.0.20"))
        await world.client.create(ENDPOINT_SLICES, slice_of("users", "10.4.0.2", "10.4.0.3"))
        async with running(world) as proxy:
            assert world.comments("frontends")
            assert (await fetch(10249, "/proxyMode"))[1] == "nftables"
        async with running(world, proxy_mode="iptables") as proxy:
            await world.until(lambda: world.comments("frontends") == [])
            assert (await fetch(10249, "/proxyMode"))[1] == "iptables"
            assert saved().count("--to-destination 10.4.0.") == 2
            measured = (await fetch(10249, "/metrics"))[1]
            for table in ("nat", "filter"):
                rules = saved().partition(f"*{table}")[2].partition("COMMIT")[0].count("\n-A KUBE-")
                words = f'{{table="{table}",ip_family="IPv4"}} {rules}'
                assert f"kubeproxy_sync_proxy_rules_iptables_total{words}" in measured
                assert f"kubeproxy_sync_proxy_rules_iptables_last{words}" in measured  # the first round writes all
            assert "kubeproxy_sync_proxy_rules_nftables" not in measured
            await world.client.patch(ENDPOINT_SLICES, "users-x", "shop", {"endpoints": slice_of("users", "10.4.0.3")["endpoints"]})
            await world.until(lambda: saved().count("--to-destination 10.4.0.") == 1)
            await world.until(lambda: proxy.beside._seen[0] == world.kernel.generation())
            flush()
            await world.until(lambda: "cluster IP" in saved())

            async def told() -> list[str]:
                return [event.message for event in await world.client.list(EVENTS) if event.reason == "ServiceRulesChanged"]

            async with asyncio.timeout(LIMIT_S):
                while not (found := await told()):
                    pass
            assert "chain KUBE-SERVICES of table nat has other rules" in found[0]
        async with running(world):
            assert world.comments("frontends")
            await world.until(lambda: "KUBE-" not in saved())

    in_loop(tmp_path_factory.mktemp("i"), body)
