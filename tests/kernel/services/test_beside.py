"""What the agent does beside its tables: pages, health checks, repair, stale flows; between a real API server and a real kernel."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kernel.services.test_agent import CONFIG, LIMIT_S, Said, World, in_loop, service, slice_of
from podwire.client.api import Client
from podwire.daemon.config import Conntrack, decode
from podwire.daemon.context import Context
from podwire.linux import sysctl
from podwire.linux.conntrack import Conntrack as Flows
from podwire.nft import Unreadable
from podwire.objects.resources import ENDPOINT_SLICES, EVENTS, NODES, SERVICE_CIDRS, SERVICES
from podwire.services import agent, cleanup, masquerade
from podwire.services.beside import TRIGGER
from podwire.services.layout import SPARE, TABLE
from podwire.wire.rtnetlink import Address, Link, add, change

TABLE_ID = ("ip", TABLE)


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("b")


@contextlib.asynccontextmanager
async def running(world: World, namespace: int | None = None, **config: Any) -> AsyncIterator[agent.ServiceProxy]:
    ready = asyncio.Event()
    context = Context(world.client, msgspec.structs.replace(CONFIG, **config), node="node-1", parts=["services"], on_ready=ready.set)
    proxy = agent.ServiceProxy(context, namespace)
    task = asyncio.create_task(proxy.run())
    try:
        async with asyncio.timeout(LIMIT_S):
            await ready.wait()
        yield proxy
    finally:
        task.cancel()
        await asyncio.wait([task])
        await context.close()


async def fetch(port: int, path: str, address: str = "127.0.0.1") -> tuple[int, str, Any]:
    def ask() -> tuple[int, str, Any]:
        connection = http.client.HTTPConnection(address, port, timeout=LIMIT_S)
        connection.request("GET", path)
        answer = connection.getresponse()
        found = answer.status, answer.read().decode(), answer.headers
        connection.close()
        return found

    while True:
        with contextlib.suppress(ConnectionRefusedError):
            return await asyncio.to_thread(ask)
        await asyncio.sleep(0.005)


def nft_(command: str) -> None:
    subprocess.run(["nft", *command.split()], check=True)


def local(name: str, ip: str, port: int) -> dict[str, Any]:
    return service(name, ip, type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=port)


def test_a_health_check_port_tells_of_local_endpoints(folder: Path) -> None:
    async def body(world: World) -> None:
        await world.client.create(SERVICES, local("web", "10.8.0.21", 32123))
        pieces = slice_of("web", "10.4.0.2", "10.4.0.3")
        pieces["endpoints"].append({"addresses": ["10.4.1.2"], "nodeName": "node-2"})
        pieces["endpoints"].append({"addresses": ["10.4.0.4"], "nodeName": "node-1", "conditions": {"ready": False, "serving": True}})
        async with running(world):
            status, text, headers = await fetch(32123, "/healthz")
            wanted = {"service": {"namespace": "shop", "name": "web"}, "localEndpoints": 0, "serviceProxyHealthy": True}
            assert (status, json.loads(text)) == (503, wanted)
            await world.client.create(ENDPOINT_SLICES, pieces)
            while status == 503:
                status, text, headers = await fetch(32123, "/healthz")
            assert json.loads(text) == wanted | {"localEndpoints": 2}
            assert (headers["Content-Type"], headers["X-Load-Balancing-Endpoint-Weight"]) == ("application/json", "2")
            await world.client.delete(SERVICES, "web", "shop")
            await world.until(lambda: _refused(32123))

    in_loop(folder, body)


def _refused(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def test_a_health_check_port_that_is_taken_becomes_an_event(folder: Path) -> None:
    async def body(world: World) -> None:
        with socket.create_server(("0.0.0.0", 32123)):
            await world.client.create(SERVICES, local("web", "10.8.0.21", 32123))
            async with running(world), asyncio.timeout(LIMIT_S):
                found: list[str] = []
                while not found:
                    found = [e.message for e in await world.client.list(EVENTS) if e.reason == "FailedToStartServiceHealthcheck"]
                assert found == ['node node-1 failed to start healthcheck "shop/web" on port 32123: Address already in use']

    in_loop(folder, body)


def test_what_is_of_a_family_that_the_service_has_not_becomes_an_event(folder: Path) -> None:
    async def body(world: World) -> None:
        more = {"externalIPs": ["192.0.2.80", "2001:db8::80"], "loadBalancerSourceRanges": ["2001:db8::/32", "10.0.0.0/8"]}
        await world.client.create(SERVICES, service("web", "10.8.0.21", type="LoadBalancer", **more))
        async with running(world), asyncio.timeout(LIMIT_S):
            found: list[str] = []
            while len(found) < 2:
                found = [e.message for e in await world.client.list(EVENTS) if e.reason == "KubeProxyIncorrectIPVersion"]
            assert sorted(found) == [
                "2001:db8::/32 in loadBalancerSourceRanges has incorrect IP version",
                "2001:db8::80 in externalIPs has incorrect IP version",
            ]

    in_loop(folder, body)


def test_connection_tracking_is_set_and_what_is_refused_is_told_once(folder: Path) -> None:
    """In a namespace of its own the kernel refuses the number of flows, which is the machine's, and takes the rest."""

    async def body(world: World) -> None:
        asked = Conntrack(max_per_core=77, tcp_established_s=4321, tcp_close_wait_s=99, tcp_be_liberal=True, udp_s=12, udp_stream_s=34)
        async with running(world, conntrack=asked), asyncio.timeout(LIMIT_S):
            rows = {"tcp_timeout_established": "4321", "tcp_timeout_close_wait": "99", "tcp_be_liberal": "1"}
            rows |= {"udp_timeout": "12", "udp_timeout_stream": "34"}
            assert {name: sysctl.read(f"net.netfilter.nf_conntrack_{name}") for name in rows} == rows
            found: list[str] = []
            while not found:
                found = [e.message for e in await world.client.list(EVENTS) if e.reason == "ConntrackSettingRefused"]
            assert [words.count("nf_conntrack_") for words in found] == [1]
            assert "net.netfilter.nf_conntrack_max" in found[0]

    in_loop(folder, body)


def test_kube_proxys_own_configuration_and_the_ranges_of_the_api(folder: Path) -> None:
    """Without Service ranges of its own the agent asks the API for them."""

    async def body(world: World) -> None:
        given = decode(
            b"apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
            b"clusterCIDR: 10.4.0.0/14\nnftables: {minSyncPeriod: 50ms}\nmodus: x\n"
        )
        await world.client.create(SERVICES, service("users", "10.8.0.20"))
        said = Said()
        async with running(world, **msgspec.structs.asdict(given)):
            assert "service proxy: modus (unknown, line 5) changes nothing here" in said.words
            table = world.kernel.dump([TABLE_ID]).tables[0]
            assert table.set("service-ranges").elements
            assert world.kernel.dump([("ip", masquerade.TABLE)]).tables == ()  # which no service proxy makes
            for number in range(5):
                piece = slice_of("users", f"10.4.0.{number + 2}")
                piece["metadata"]["name"] = f"users-{number}"
                await world.client.create(ENDPOINT_SLICES, piece)
            await world.until(lambda: world.comments("backends").count("shop/users:http/TCP") == 5)

    in_loop(folder, body)


def own_addresses(*addresses: str) -> dict[str, Any]:
    return {"status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]}}


def where_node_ports_are() -> set[str]:
    """The matches before the jump to node ports, as iptables prints them."""
    saved = subprocess.run(["iptables-nft-save", "-t", "nat"], capture_output=True, text=True, check=True).stdout
    return {line.split(" -m ")[0].removeprefix("-A KUBE-SERVICES ") for line in saved.splitlines() if line.endswith("-j KUBE-NODEPORTS")}


def test_primary_is_what_the_node_says_of_itself_and_follows_it(folder: Path) -> None:
    """Nothing is programmed until the Node has an address: node ports on all addresses would be a gap."""

    async def body(world: World) -> None:
        await world.client.create(SERVICES, service("web", "10.8.0.21", type="NodePort"))

        async def say(*addresses: str) -> None:
            await world.client.patch(NODES, "node-1", "", own_addresses(*addresses), subresource="status")

        context = Context(world.client, CONFIG, node="node-1", parts=["services"])
        context.config = msgspec.structs.replace(CONFIG, proxy_mode="iptables", node_port_addresses=("primary",))
        said = Said()
        proxy = asyncio.create_task(agent.ServiceProxy(context).run())
        await world.until(lambda: any("waiting for an address of Node node-1" in words for words in said.words))
        assert where_node_ports_are() == set()
        for addresses in (["10.128.0.2"], ["10.128.0.2", "fd00::2"], ["10.128.0.9"]):
            await say(*addresses)
            await world.until(lambda own=addresses[0]: where_node_ports_are() == {f"-d {own}/32"})
        await say()
        await world.client.create(SERVICES, service("last", "10.8.0.22"))
        await world.until(lambda: "10.8.0.22" in subprocess.run(["iptables-nft-save"], capture_output=True, text=True, check=True).stdout)
        assert where_node_ports_are() == {"-d 10.128.0.9/32"}
        proxy.cancel()
        await asyncio.wait([proxy])
        await context.close()

    in_loop(folder, body)


def test_both_families_are_programmed_where_only_the_api_knows_of_ranges(folder: Path) -> None:
    """One of the second family may be made at any time. Pages at :: are for IPv4, too; one that cannot listen does not keep the other."""

    async def body(world: World) -> None:
        given = decode(
            b"apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
            b"bindAddress: '::'\nhealthzBindAddress: '192.0.2.1:10256'\nmetricsBindAddress: '::'\nnodePortAddresses: [10.128.0.0/20]\n"
        )
        async with running(world, **msgspec.structs.asdict(given)):
            assert [name for name in world.kernel.names() if name[1] == TABLE] == [("ip", TABLE), ("ip6", TABLE)]
            for address in ("127.0.0.1", "::1"):
                assert (await fetch(10249, "/proxyMode", address))[1] == "nftables"
            sets = {family: {one.name for one in world.kernel.dump([(family, TABLE)]).tables[0].sets} for family in ("ip", "ip6")}
            assert ("node-port-ranges" in sets["ip"], "node-port-ranges" in sets["ip6"]) == (True, False)  # of IPv6 no range is given: all

    in_loop(folder, body)


def test_an_api_that_tells_of_no_ranges_is_done_without(folder: Path) -> None:
    """As one that is older than ServiceCIDRs, or does not show them to this user."""

    async def body(world: World) -> None:
        await world.client.create(SERVICES, service("web", "10.8.0.21"))
        said = Said()
        own = str(Path(world.kubeconfig).with_name("node.node-1"))
        async with Client.from_kubeconfig(own) as client, running(World(client, world.kernel, world.network, own), service_ranges=()):
            assert world.kernel.dump([TABLE_ID]).tables[0].set("service-ranges").elements == {}
            assert "shop/web" in world.comments("cluster-ips")
        assert [words for words in said.words if "without Service ranges, as the API tells of none: servicecidrs" in words]

    in_loop(folder, body)


def service_cidr(*ranges: str) -> dict[str, Any]:
    metadata = {"name": "more"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": metadata, "spec": {"cidrs": list(ranges)}}


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_ranges_that_the_api_gets_later_count(folder: Path, mode: str) -> None:
    """As with the API's first ones: an address that nobody has is dropped there, and a Service's serves."""

    def run(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    def ranges() -> set[str]:
        if mode == "iptables":
            text = run("iptables-nft-save", "-t", "filter")
        else:
            text = "".join(run("nft", "list", "set", "ip", name, "service-ranges") for name in (TABLE, SPARE))
        return {one for one in ("10.8.0.0/20", "10.9.0.0/24") if one in text}

    def listed(text: str) -> bool:
        return text in run("nft", "list", "ruleset")

    async def body(world: World) -> None:
        said = Said()
        async with running(world, service_ranges=(), proxy_mode=mode):
            assert ranges() == {"10.8.0.0/20"}
            await world.client.create(SERVICE_CIDRS, service_cidr("10.9.0.0/24"))
            await world.until(lambda: ranges() == {"10.8.0.0/20", "10.9.0.0/24"})
            await world.client.create(SERVICES, service("users", "10.9.0.20"))
            await world.until(lambda: listed("10.9.0.20"))
            await world.client.delete(SERVICES, "users", "shop")
            await world.client.delete(SERVICE_CIDRS, "more")
            await world.until(lambda: ranges() == {"10.8.0.0/20"})
            await world.until(lambda: not listed("10.9.0.20"))
        assert not [words for words in said.words if "somebody changed" in words]

    in_loop(folder, body)


def test_the_proxys_own_health(folder: Path) -> None:
    async def body(world: World) -> None:
        async with running(world) as proxy:
            for path, keys in (("/healthz", {"lastUpdated", "currentTime", "nodeEligible"}), ("/livez", {"lastUpdated", "currentTime"})):
                status, text, _ = await fetch(10256, path)
                assert (status, set(json.loads(text))) == (200, keys)
            taint = {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}
            await world.client.patch(NODES, "node-1", "", taint)
            status = 200
            while status == 200:
                status, text, _ = await fetch(10256, "/healthz")
            assert (status, json.loads(text)["nodeEligible"]) == (503, False)
            assert (await fetch(10256, "/livez"))[0] == 200
            assert (await fetch(10256, "/other"))[0] == 404
            proxy.beside._waiting = proxy._context.clock() - 61  # changes wait for more than a minute
            assert (await fetch(10256, "/livez"))[0] == 503
            _, text, _ = await fetch(10249, "/metrics")
            assert 'kubeproxy_proxy_livez_total{code="200"} 2' in text
            assert 'kubeproxy_proxy_livez_total{code="503"} 1' in text

    in_loop(folder, body)


def test_metrics_tell_of_rounds_and_of_the_time_that_a_change_took(folder: Path) -> None:
    async def body(world: World) -> None:
        await world.client.create(SERVICES, service("users", "10.8.0.20", internalTrafficPolicy="Local"))
        async with running(world) as proxy:
            piece = slice_of("users", "10.4.0.2")
            piece["endpoints"][0]["nodeName"] = "node-2"
            piece["metadata"]["annotations"] = {TRIGGER: datetime.now(UTC).isoformat().replace("+00:00", "Z")}
            await world.client.create(ENDPOINT_SLICES, piece)
            await world.until(lambda: proxy.beside.metrics.histogram("network_programming_duration_seconds", "IPv4"))
            _, text, _ = await fetch(10249, "/metrics")
            rows = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            assert rows['kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"}'] == "1"
            assert rows['kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}'] == "1"
            assert int(rows['kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="+Inf"}']) >= 1
            assert rows['kubeproxy_sync_proxy_rules_endpoint_changes_pending{ip_family="IPv4"}'] == "0"
            assert rows['kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"}'] == "1"
            assert (await fetch(10249, "/proxyMode"))[1] == "nftables"

    in_loop(folder, body)


DAMAGES = {
    f"delete element ip {TABLE} frontends {{ 10.8.0.20 . tcp . 80 }}": "map frontends lacks the element of shop/users:http/TCP",
    f"flush map ip {TABLE} pick": "map pick has other elements",
    f"flush chain ip {TABLE} services": "chain services has other rules",
    f"add element ip {TABLE} cluster-ips {{ 10.8.0.99 }}": "set cluster-ips has an element too many",
    f"delete table ip {TABLE}": f"table ip {TABLE} is gone",
    f"add chain ip {TABLE} mine": "chain mine was added",
    "delete table ip podwire-masquerade": "table ip podwire-masquerade is not as it was",
    f"flush chain ip {TABLE} pick-2": "chain pick-2 has other rules",
    f"add table ip {TABLE} {{ flags dormant; }}": f"table ip {TABLE} is dormant",
    f"add set ip {TABLE} mine {{ type ether_addr . ifname; }}": f"table ip {TABLE} has what is not known here",
    f"add element ip {TABLE} keep-source {{ * }}": f"table ip {TABLE} has what is not known here",
    "add set ip podwire-masquerade mine { type ether_addr . ifname; }": "table ip podwire-masquerade is not as it was",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_somebody_changes_is_put_right_and_told(folder: Path, damage: str) -> None:
    async def body(world: World) -> None:
        await world.client.create(SERVICES, service("users", "10.8.0.20"))
        await world.client.create(ENDPOINT_SLICES, slice_of("users", "10.4.0.2", "10.4.0.3"))
        async with running(world), asyncio.timeout(LIMIT_S):
            before = _data(world)
            nft_(damage)
            assert _data(world) != before
            await world.until(lambda: _data(world) == before)
            found: list[str] = []
            while not found:
                found = [e.message for e in await world.client.list(EVENTS) if e.reason == "ServiceRulesChanged"]
            assert len(found) == 1
            assert DAMAGES[damage] in found[0]

    in_loop(folder, body)


def _data(world: World) -> Any:
    """The rules and elements, under whichever of its names the table is."""
    try:
        tables = [table for table in world.kernel.dump().tables if any(chain.hook for chain in table.chains)]
    except Unreadable as error:
        return str(error)
    return [
        (
            table.dormant,
            sorted((chain.name, tuple(str(rule) for rule in chain.rules)) for chain in table.chains),
            {one.name: {key: element.value for key, element in one.elements.items()} for one in table.sets},
        )
        for table in sorted(tables, key=lambda table: table.name.replace("-2", ""))
    ]


def test_two_proxies_that_want_it_otherwise_fill_no_log(folder: Path) -> None:
    async def body(world: World) -> None:
        said = Said()
        quiet = {"proxy_health_address": "", "proxy_metrics_address": ""}
        async with running(world, **quiet), running(world, masquerade_pods=False, **quiet):
            began = world.kernel.generation()
            await world.until(lambda: world.kernel.generation() > began + 20)
        told = Counter(words for words in said.words if "somebody changed" in words)
        assert max(told.values()) <= 2  # once by each

    in_loop(folder, body)


def test_changes_of_our_own_and_of_others_elsewhere_are_no_damage(folder: Path) -> None:
    async def body(world: World) -> None:
        await world.client.create(SERVICES, service("users", "10.8.0.20"))
        readings: list[object] = []
        from podwire.services import beside

        read = beside._read

        def counted(*arguments: Any) -> Any:
            found = read(*arguments)
            readings.append(found)
            return found

        beside._read = counted  # type: ignore[assignment]  # the test's process alone
        async with running(world) as proxy:
            for count in range(2, 40):
                piece = slice_of("users", *(f"10.4.0.{number}" for number in range(2, 2 + count)))
                if count == 2:
                    await world.client.create(ENDPOINT_SLICES, piece)
                else:
                    await world.client.patch(ENDPOINT_SLICES, "users-x", "shop", {"endpoints": piece["endpoints"]})
            # The API server's own Service has an endpoint there too.
            await world.until(lambda: len([c for c in world.comments("backends") if c.startswith("shop/users")]) == 39)
            await world.until(lambda: proxy.beside._seen[0] == world.kernel.generation())
            assert readings == []
            nft_("add table ip somebody")
            await world.until(lambda: readings)
            nft_("delete table ip somebody")
            assert [e for e in await world.client.list(EVENTS) if e.reason == "ServiceRulesChanged"] == []

    in_loop(folder, body)


def test_flows_of_udp_clients_are_forgotten_by_the_agent(folder: Path) -> None:
    udp = {"ports": [{"name": "http", "port": 80, "protocol": "UDP", "targetPort": 8080}]}

    def piece(address: str) -> dict[str, Any]:
        found = slice_of("dns", address)
        return found | {"ports": [{"name": "http", "port": 8080, "protocol": "UDP"}]}

    async def body(world: World) -> None:
        world.network.apply([add(Link("d0", "veth", peer=Link("d1"))), change(Link("d0", up=True)), change(Link("d1", up=True))])
        import ipaddress

        world.network.apply([add(Address("lo", ipaddress.IPv4Interface(f"{address}/32"))) for address in ("10.4.0.2", "10.4.0.3")])
        world.network.apply([add(Address("d0", ipaddress.IPv4Interface("10.128.0.2/24")))])
        await world.client.create(SERVICES, service("dns", "10.128.0.20") | {"spec": {"clusterIP": "10.8.0.20"} | udp})
        await world.client.create(ENDPOINT_SLICES, piece("10.4.0.2"))
        world.network.apply([add(_route())])
        async with running(world) as proxy:
            kind = socket.AF_INET, socket.SOCK_DGRAM
            with socket.socket(*kind) as client, socket.socket(*kind) as old, socket.socket(*kind) as new, Flows() as table:
                old.bind(("10.4.0.2", 8080))
                new.bind(("10.4.0.3", 8080))
                client.connect(("10.8.0.20", 80))
                client.send(b"?")
                [flow] = [f for f in table.flows("ip") if f.mark]
                assert str(ipaddress.ip_address(flow.reply.source)) == "10.4.0.2"
                await world.client.patch(ENDPOINT_SLICES, "dns-x", "shop", {"endpoints": piece("10.4.0.3")["endpoints"]})
                await world.until(lambda: not [f for f in table.flows("ip") if f.id == flow.id])
                client.send(b"?")
                [flow] = [f for f in table.flows("ip") if f.mark]
                assert str(ipaddress.ip_address(flow.reply.source)) == "10.4.0.3"
            # The kernel has forgotten the flow a moment before the agent counts it.
            await world.until(lambda: proxy.beside.metrics.get("conntrack_reconciler_deleted_entries_total", "IPv4") == 1)

    in_loop(folder, body)


def _route() -> Any:
    from ipaddress import IPv4Network

    from podwire.wire.rtnetlink import Route

    return Route(IPv4Network("10.8.0.0/24"), link="d0")


def test_off_means_gone(folder: Path) -> None:
    async def body(world: World) -> None:
        await world.client.create(SERVICES, service("web", "10.8.0.21", type="LoadBalancer"))
        await world.client.patch(
            SERVICES, "web", "shop", {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}, subresource="status"
        )
        async with running(world):
            await world.until(lambda: world.vips() == ["203.0.113.7/32"])
        nft_("add table ip somebody")
        cleanup.remove(CONFIG)
        assert [table.name for table in world.kernel.dump().tables] == ["somebody"]
        assert world.vips() == []
        cleanup.remove(CONFIG)

    in_loop(folder, body)
