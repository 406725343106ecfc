"""The CNI plugin by call: what the specification demands, in every mode, with packets."""

from __future__ import annotations

import json
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest

import podwire
from kernel.pods.calling import Runtime, address_of, answering, link_up, reach
from podwire import nft
from podwire.linux import namespaces, sysctl
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.pods import wiring
from podwire.pods.address_log import AddressLog
from podwire.wire.rtnetlink import Address, Link, Route, add, change, delete

DUAL = {"ranges": [[{"subnet": "10.22.0.0/24"}], [{"subnet": "fd00:22::/64"}]]}
MODES = ("routed", "bridge", "ptp")


def leased(folder: Path) -> dict[str, str]:
    """The addresses that are given, and to whom."""
    found: dict[str, str] = {}
    for path in (folder / "data" / "net" / "leases").iterdir():
        log = AddressLog(str(path))
        with log.locked():
            found |= log.owners
    return found


@pytest.mark.parametrize("mode", MODES)
def test_containers_reach_each_other_and_the_machine_in_both_families(mode: str, tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    asked = runtime.configuration(mode=mode, ipam=DUAL, mtu=1400)
    first, second = runtime.add("c1", asked), runtime.add("c2", asked)
    for family in (4, 6):
        address = address_of(second, family)
        with answering(runtime.namespaces["c2"], address, 80) as seen:
            assert reach(runtime.namespaces["c1"], address, 80) == b"hello"
            assert reach(None, address, 80) == b"hello"
        gateway = next(ip["gateway"] for ip in first["ips"] if (":" in ip["gateway"]) == (family == 6))
        assert seen == [address_of(first, family), gateway]
    for name in ("c1", "c2"):
        runtime.done("CHECK", name, asked)
        runtime.done("DEL", name, asked)
    with Network() as network:
        assert not {link for link in network.links() if link.startswith("veth")}
        own = {found.address.ip for found in network.addresses()}
        routes = [route for route in network.routes(254) if route.destination.prefixlen in {32, 128}]
        assert [route for route in routes if route.destination.network_address not in own] == []
    assert leased(tmp_path) == {}
    assert not list((tmp_path / "data" / "net" / "attachments").glob("[!.]*"))


@pytest.mark.parametrize("mode", MODES)
def test_the_result_says_what_there_is(mode: str, tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    asked = runtime.configuration(mode=mode, dns={"nameservers": ["10.8.0.10"]})
    result = runtime.add("c1", asked)
    inner = result["interfaces"][-1]
    with Network(runtime.namespaces["c1"]) as inside, Network() as outside:
        link = inside.links()["eth0"]
        outer = outside.links()
        routes = [route for route in inside.routes(254) if route.gateway]
    assert inner == {"name": "eth0", "mac": link.mac.hex(":"), "mtu": 1500, "sandbox": inner["sandbox"]}
    assert inner["sandbox"].startswith("/proc/")
    for one in result["interfaces"][:-1]:
        assert (outer[one["name"]].mac.hex(":"), outer[one["name"]].mtu) == (one["mac"], one["mtu"])
    place = len(result["interfaces"]) - 1
    assert result["ips"] == [{"address": "10.22.0.2/24", "gateway": "10.22.0.1", "interface": place}]
    assert result["routes"] == [{"dst": str(route.destination), "gw": str(route.gateway)} for route in routes]
    assert result["dns"] == {"nameservers": ["10.8.0.10"]}


def test_the_example_of_the_readme_works(tmp_path: Path) -> None:
    page = (Path(podwire.__file__).parent / "pods" / "cni" / "README.md").read_text()
    found = json.loads(page.split("```json\n")[1].split("```")[0])
    plugin = found["plugins"][0] | {"cniVersion": found["cniVersion"], "name": found["name"], "dataDir": str(tmp_path)}
    runtime = Runtime(tmp_path)
    result = runtime.add("c1", plugin)
    assert [ip["address"] for ip in result["ips"]] == ["10.4.0.2/24", "fd00:4::2/64"]
    runtime.done("CHECK", "c1", plugin)


def test_each_version_has_its_shape(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    for number, version in enumerate(("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")):
        result = runtime.add(f"c{number}", runtime.configuration(cniVersion=version))
        assert result["cniVersion"] == version
        assert ("version" in result["ips"][0]) == (version < "1.0.0")
        assert ("mtu" in result["interfaces"][0]) == (version == "1.1.0")
    for command, version in (("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")):
        assert runtime.refused(command, "c1", runtime.configuration(cniVersion=version))["code"] == 1
    answer = runtime.refused("ADD", "c1", runtime.configuration(cniVersion="2.0.0"))
    assert (answer["code"], answer["cniVersion"]) == (1, "1.1.0")
    assert "0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in answer["msg"]
    status, versions = runtime.call("VERSION", "", {"cniVersion": "1.0.0"})
    assert (status, versions["cniVersion"], versions["supportedVersions"][-1]) == (0, "1.0.0", "1.1.0")


def test_an_interface_that_is_there_is_refused_and_left_alone(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    asked = runtime.configuration()
    runtime.add("c1", asked)
    answer = runtime.refused("ADD", "c1", asked)
    assert (answer["code"], answer["msg"]) == (4, "CNI_IFNAME: the container has an interface eth0 already")
    runtime.done("CHECK", "c1", asked)
    second = runtime.add("c1", asked, interface="net1")
    assert address_of(second) == "10.22.0.3"
    runtime.done("DEL", "c1", asked, interface="net1")
    runtime.done("CHECK", "c1", asked)


def test_deleting_again_and_without_anything_is_fine(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    asked = runtime.configuration()
    runtime.done("DEL", "never-there", asked)
    runtime.add("c1", asked)
    runtime.results.clear()
    runtime.done("DEL", "c1", asked, CNI_NETNS="")
    runtime.done("DEL", "c1", asked, CNI_NETNS="/var/run/netns/gone")
    runtime.add("c2", asked)
    runtime.gone("c2")
    runtime.done("DEL", "c2", asked)


@pytest.mark.parametrize(
    ("variables", "code", "words"),
    [
        ({"CNI_NETNS": "/var/run/netns/none"}, 3, "CNI_NETNS: /var/run/netns/none: No such file"),
        ({"CNI_NETNS": "/proc/self/ns/net"}, 4, "the network namespace that this plugin itself is in"),
        ({"CNI_NETNS": "/dev/null"}, 4, "CNI_NETNS: /dev/null is no network namespace"),
        ({"CNI_IFNAME": "a/b"}, 4, "CNI_IFNAME: expected the name of an interface, got 'a/b'"),
        ({"CNI_CONTAINERID": "../up"}, 4, "CNI_CONTAINERID: expected letters"),
        ({"CNI_COMMAND": "PUT"}, 4, "CNI_COMMAND: expected one of ADD, DEL"),
        ({"CNI_ARGS": "IP"}, 4, "CNI_ARGS: expected KEY=VALUE"),
        ({"CNI_ARGS": "IP=10.23.0.9"}, 103, "10.23.0.9 is none of the addresses"),
    ],
)
def test_a_wrong_call_gets_the_code_and_the_word(variables: dict[str, str], code: int, words: str, tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    runtime.container("c1")
    answer = runtime.refused("ADD", "c1", runtime.configuration(), **variables)
    assert answer["code"] == code
    assert words in answer["msg"]


def test_an_exhausted_range_says_so_and_what_is_gone_is_given_again(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    asked = runtime.configuration(ipam={"subnet": "10.22.0.0/29"})
    for number in range(5):
        runtime.add(f"c{number}", asked)
    runtime.container("late")
    answer = runtime.refused("ADD", "late", asked)
    assert (answer["code"], answer["msg"]) == (11, "no address left in 10.22.0.0/29: all 5 are in use")
    assert runtime.refused("STATUS", "", asked)["code"] == 50
    with Network(runtime.namespaces["late"]) as inside:
        assert set(inside.links()) == {"lo"}
    runtime.gone("c3")  # without a DEL: its link went with it
    deadline = 500
    with Network() as network:
        while wiring.port_of("c3 eth0") in network.links() and deadline:
            deadline -= 1
    runtime.done("STATUS", "", asked)
    assert address_of(runtime.add("late", asked)) == "10.22.0.5"


def test_garbage_is_collected_and_the_rest_stays(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    asked = runtime.configuration(ipMasq=True)
    for name in ("c1", "c2", "c3"):
        runtime.add(name, asked)
    other = runtime.configuration(name="other", bridge="cbr1", ipMasq=True, ipam={"subnet": "10.23.0.0/24"})
    runtime.add("o1", other)
    assert runtime.refused("GC", "", asked)["code"] == 7
    runtime.done("GC", "", asked | {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]})
    runtime.done("CHECK", "c2", asked)
    runtime.done("CHECK", "o1", other)
    with Network() as network, Nftables() as nftables:
        ports = {name for name in network.links() if name.startswith("veth")}
        masqueraded = nftables.dump([("ip", "podwire-cni")]).table("ip", "podwire-cni").set("masqueraded").elements
    assert ports == {wiring.port_of("c2 eth0"), wiring.port_of("o1 eth0")}
    assert len(masqueraded) == 2
    assert runtime.refused("CHECK", "c1", asked)["code"] == 102


def test_a_failed_add_leaves_nothing(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    mapped = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}
    runtime.add("c1", runtime.configuration(**mapped))
    runtime.container("c2")
    answer = runtime.refused("ADD", "c2", runtime.configuration(**mapped))
    assert (answer["code"], answer["msg"]) == (104, "host port 8080/tcp leads to another container")
    with Network(runtime.namespaces["c2"]) as inside, Network() as outside:
        assert set(inside.links()) == {"lo"}
        assert {name for name in outside.links() if name.startswith("veth")} == {wiring.port_of("c1 eth0")}
    assert list(leased(tmp_path)) == ["10.22.0.2"]
    runtime.done("CHECK", "c1", runtime.configuration(**mapped))


@pytest.mark.parametrize("mode", MODES)
def test_host_ports_of_both_families_also_at_the_machines_loopback(mode: str, tmp_path: Path) -> None:
    link_up("lo")
    sysctl.write_all({"-net.bridge.bridge-nf-call-ip6tables": "0"})  # which a plain bridge leaves as it is, see the README
    runtime = Runtime(tmp_path)
    mappings = [
        {"hostPort": 8080, "containerPort": 80},
        {"hostPort": 8084, "containerPort": 80, "hostIP": "0.0.0.0"},
        {"hostPort": 8086, "containerPort": 80, "hostIP": "::"},
        {"hostPort": 8081, "containerPort": 80, "hostIP": "::1"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
    ]
    asked = runtime.configuration(mode=mode, ipam=DUAL, hairpinMode=True)
    mapped = asked | {"runtimeConfig": {"portMappings": mappings}}
    other = runtime.configuration(mode=mode, name="other", bridge="br-other", ipam={"ranges": [[{"subnet": "fd00:23::/64"}]]})
    first = runtime.add("c1", mapped)
    second = runtime.add("o1", other | {"runtimeConfig": {"portMappings": [{"hostPort": 8090, "containerPort": 80}]}})
    runtime.add("c2", asked)
    inside, neighbour = runtime.namespaces["c1"], runtime.namespaces["c2"]
    with answering(inside, address_of(first), 80), answering(inside, address_of(first, 6), 80):
        for caller, address, port in (
            (None, "127.0.0.1", 8080),
            (None, "::1", 8080),
            (None, "fd00:22::1", 8080),
            (neighbour, "fd00:22::1", 8080),
            (inside, "fd00:22::1", 8080),
            (None, "127.0.0.1", 8084),
            (None, "::1", 8086),
            (None, "::1", 8081),
        ):
            assert reach(caller, address, port) == b"hello", (caller, address, port)
        for address, port in (("::1", 8084), ("127.0.0.1", 8086), ("fd00:22::1", 8081)):
            with pytest.raises(ConnectionRefusedError):
                reach(None, address, port)
        with answering(inside, address_of(first, 6), 53, "udp"):
            assert reach(None, "::1", 5353, "udp") == b"hello"
        with answering(runtime.namespaces["o1"], address_of(second, 6), 80):
            assert reach(None, "::1", 8090) == b"hello"
            assert reach(None, "::1", 8080) == b"hello", "the way of one network does not take the place of another's"
        runtime.done("CHECK", "c1", mapped)
        runtime.done("DEL", "c1", mapped)
        with pytest.raises(ConnectionRefusedError):
            reach(None, "::1", 8080)


@pytest.mark.parametrize("mode", MODES)
def test_host_ports_lead_to_the_container(mode: str, tmp_path: Path) -> None:
    link_up("lo")
    mappings = [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp"},
        {"hostPort": 8081, "containerPort": 80, "protocol": "TCP", "hostIP": "10.22.0.1"},
    ]
    runtime = Runtime(tmp_path)
    asked = runtime.configuration(mode=mode, hairpinMode=True)  # where bridge netfilter is on, a bridge sends it back by the same port
    first = runtime.add("c1", asked | {"runtimeConfig": {"portMappings": mappings}})
    runtime.add("c2", asked)
    inside, neighbour = runtime.namespaces["c1"], runtime.namespaces["c2"]
    with answering(inside, "0.0.0.0", 80), answering(inside, "0.0.0.0", 53, "udp"):
        for caller, address in ((None, "127.0.0.1"), (None, "10.22.0.1"), (neighbour, "10.22.0.1"), (inside, "10.22.0.1")):
            assert reach(caller, address, 8080) == b"hello", (caller, address)
        assert reach(None, "10.22.0.1", 5353, "udp") == b"hello"
        assert reach(neighbour, "10.22.0.1", 8081) == b"hello"
        with pytest.raises(ConnectionRefusedError):
            reach(None, "127.0.0.1", 8081)
        runtime.done("DEL", "c2", asked)
        assert reach(None, "127.0.0.1", 8080) == b"hello"
        runtime.done("CHECK", "c1", asked | {"runtimeConfig": {"portMappings": mappings}})
        with Nftables() as nftables:  # the control: without the tables nobody answers
            nftables.apply([nft.DeleteTable(("ip", "podwire-cni"))])
            with pytest.raises(ConnectionRefusedError):
                reach(None, "127.0.0.1", 8080)
    assert runtime.refused("CHECK", "c1", asked | {"runtimeConfig": {"portMappings": mappings}})["code"] == 102
    assert address_of(first) == "10.22.0.2"
    runtime.done("DEL", "c1", asked)
    with Nftables() as nftables:
        assert nftables.dump().tables == ()


def test_what_leaves_the_network_takes_the_machines_address(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    world = namespaces.create_network()
    with Network() as here, Network(world) as there:
        here.apply([add(Link("up", "veth", peer=Link("eth0", namespace_fd=world), up=True))])
        here.apply([add(Address("up", ip_interface("192.0.2.1/24")))])
        there.apply([change(Link("eth0", up=True)), add(Address("eth0", ip_interface("192.0.2.2/24")))])
        there.apply([add(Route(ip_network("10.22.0.0/16"), gateway=ip_interface("192.0.2.1").ip, link="eth0"))])
        here.wait_running("up")
    for name, masquerade, seen_as in (("c1", True, "192.0.2.1"), ("c2", False, "10.22.1.2")):
        subnet = {"subnet": f"10.22.{0 if masquerade else 1}.0/24"}
        asked = runtime.configuration(name=name, bridge=f"br-{name}", ipMasq=masquerade, ipam=subnet)
        runtime.add(name, asked)
        with answering(world, "192.0.2.2", 80) as seen:
            assert reach(runtime.namespaces[name], "192.0.2.2", 80) == b"hello"
        assert seen == [seen_as]


def test_rates_are_held(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    limits = {"ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 4_000_000, "egressBurst": 80_000}
    asked = runtime.configuration(runtimeConfig={"bandwidth": limits})
    runtime.add("c1", asked)
    with Network() as outside, Network(runtime.namespaces["c1"]) as inside:
        assert [(one.link, one.rate) for one in outside.queues()] == [(wiring.port_of("c1 eth0"), 1_000_000)]
        assert [(one.link, one.rate) for one in inside.queues()] == [("eth0", 500_000)]
        runtime.done("CHECK", "c1", asked)
        inside.apply([delete(one) for one in inside.queues()])
    assert "eth0 does not hold the rate of 4000000 bits" in runtime.refused("CHECK", "c1", asked)["msg"]


def test_wanted_addresses_and_mac(tmp_path: Path) -> None:
    runtime = Runtime(tmp_path)
    asked = runtime.configuration()
    result = runtime.add("c1", asked, CNI_ARGS="IgnoreUnknown=1;IP=10.22.0.77;MAC=02:00:00:00:00:07")
    assert address_of(result) == "10.22.0.77"
    assert result["interfaces"][-1]["mac"] == "02:00:00:00:00:07"
    runtime.container("c2")
    taken = runtime.refused("ADD", "c2", asked | {"runtimeConfig": {"ips": ["10.22.0.77/24"]}})
    assert (taken["code"], taken["msg"]) == (103, "10.22.0.77 is in use")
    assert address_of(runtime.add("c2", asked | {"args": {"cni": {"ips": ["10.22.0.78"]}}})) == "10.22.0.78"


def test_chained_it_gives_host_ports_to_the_interface_of_another(tmp_path: Path) -> None:
    link_up("lo")
    runtime = Runtime(tmp_path)
    before = runtime.add("c1", runtime.configuration(name="first", mode="bridge"))
    asked = runtime.configuration(
        mode="chained", prevResult=before, runtimeConfig={"portMappings": [{"hostPort": 8080, "containerPort": 80}]}
    )
    del asked["ipam"]
    status, passed = runtime.call("ADD", "c1", asked)
    assert (status, passed) == (0, before)
    with answering(runtime.namespaces["c1"], "0.0.0.0", 80):
        assert reach(None, "127.0.0.1", 8080) == b"hello"
    runtime.done("CHECK", "c1", asked)
    runtime.done("DEL", "c1", asked)
    with pytest.raises(ConnectionRefusedError):
        reach(None, "127.0.0.1", 8080)
    del asked["prevResult"]
    answer = runtime.refused("ADD", "c1", asked)
    assert (answer["code"], answer["msg"].partition(":")[0]) == (7, "prevResult")
