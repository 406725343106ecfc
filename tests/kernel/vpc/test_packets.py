"""The VPC network with packets. Each claim has its control: without the table, or without the one element, it is not so."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
from collections import Counter
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from podwire import nft
from podwire.linux.network import LinkChanges, Network
from podwire.linux.nftables import Nftables
from podwire.vpc import ruleset
from podwire.vpc.agent import Kernel
from podwire.wire.rtnetlink import Link, Route, add, change

sys.path.insert(0, str(Path(__file__).parent))

from world import BALANCER, CLIENT, EXTERNAL, NAT, NOTHING_S, OTHER, World, ask

NODE, POD = IPv4Address("10.128.0.3"), IPv4Address("10.4.1.5")


def test_connections_are_spread_over_nodes_and_keep_both_addresses() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_STREAM, 80)
        with pytest.raises(OSError):  # noqa: PT011  (control: nothing forwards)
            world.connect("internet", BALANCER, limit_s=NOTHING_S)
        world.program(world.forwarding())
        answers = [world.call("internet", BALANCER) for _ in range(60)]
        assert {tuple(answer[1:]) for answer in answers} == {(str(CLIENT), str(BALANCER))}
        counts = Counter(answer[0] for answer in answers)
        assert set(counts) == {"node-0", "node-1", "node-2"}
        assert min(counts.values()) >= 5


def test_the_same_addresses_and_ports_go_to_the_same_node_also_after_a_new_start_of_the_table() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_STREAM, 80)
        world.program(world.forwarding())
        ports = range(20_000, 20_012)
        first = [world.call("internet", BALANCER, source_port=port)[0] for port in ports]
        assert len(set(first)) > 1  # control: it is not one node for all
        world.program()
        world.program(world.forwarding())
        assert [world.call("internet", BALANCER, source_port=port)[0] for port in ports] == first


def test_client_ip_affinity_keeps_a_client_on_one_node() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_STREAM, 80)
        world.program(world.forwarding(by_client=True))
        assert len({world.call("internet", BALANCER)[0] for _ in range(20)}) == 1
        world.program(world.forwarding(by_client=False))
        assert len({world.call("internet", BALANCER)[0] for _ in range(20)}) > 1


def test_an_open_connection_stays_where_it_is_when_the_pool_changes() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_STREAM, 80)
        world.program(world.forwarding())
        with world.connect("internet", BALANCER, source_port=20_100) as connection:
            before = ask(connection)[0]
            others = [host for host in world.hosts if host.name != before]
            world.program(world.forwarding(hosts=others))
            assert ask(connection)[0] == before
        assert world.call("internet", BALANCER, source_port=20_100)[0] != before  # control: a new one goes elsewhere


def test_udp_and_all_ports() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_DGRAM, 5353)
        world.program(world.forwarding("udp", None))
        places = set()
        for _ in range(30):
            with world.datagrams("internet") as client:
                client.sendto(b"?", (str(BALANCER), 5353))
                answer, source = client.recvfrom(200)
                place, caller, called = answer.decode().split()
                assert (caller, called, source[0]) == (str(CLIENT), str(BALANCER), str(BALANCER))
                places.add(place)
        assert len(places) == 3
        world.serve("node-0", socket.SOCK_STREAM, 5353)
        with pytest.raises(TimeoutError):  # another protocol
            world.connect("internet", BALANCER, 5353, limit_s=NOTHING_S)


def test_without_an_instance_and_without_a_rule_packets_are_dropped() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_STREAM, 80)
            world.serve(host.name, socket.SOCK_STREAM, 81)
        world.program(world.forwarding(hosts=()))
        with pytest.raises(TimeoutError):
            world.connect("internet", BALANCER, limit_s=NOTHING_S)
        world.program(world.forwarding())
        assert world.call("internet", BALANCER)
        for address, port in ((BALANCER, 81), (OTHER, 80)):
            with pytest.raises(TimeoutError):
                world.connect("internet", address, port, limit_s=NOTHING_S)
            with pytest.raises(TimeoutError):
                world.connect("node-0" if address != OTHER else "internet", IPv4Address("203.0.113.99"), port, limit_s=NOTHING_S)


def test_nothing_new_comes_in_from_the_internet() -> None:
    with World() as world:
        world.serve("node-1", socket.SOCK_STREAM, 80)
        # control: the way is there, only the table closes it
        assert world.call("internet", NODE)[:2] == ["node-1", str(CLIENT)]
        world.program(world.forwarding())
        for address in (NODE, POD):
            with pytest.raises(TimeoutError):
                world.connect("internet", address, limit_s=NOTHING_S)
        assert world.call("node-0", NODE)[0] == "node-1"


def test_pod_ranges_are_routed_to_their_nodes_without_translation() -> None:
    with World() as world:
        world.serve("node-1", socket.SOCK_STREAM, 80)

        def from_pod() -> list[str]:
            connection = world.inside("node-0", lambda: socket.create_connection((str(POD), 80), NOTHING_S, source_address=("10.4.0.5", 0)))
            with connection:
                return ask(connection)

        with pytest.raises(OSError):  # noqa: PT011  (control: no route)
            from_pod()
        world.program()
        assert from_pod() == ["node-1", "10.4.0.5", str(POD)]
        world.program(hosts=world.hosts[:1])  # the other instance is gone, and its routes with it
        with pytest.raises(OSError):  # noqa: PT011
            from_pod()


def test_connections_to_the_internet_leave_with_the_address_of_cloud_nat() -> None:
    with World() as world:
        world.serve("internet", socket.SOCK_STREAM, 80)
        assert world.call("node-0", CLIENT)[1] == "10.128.0.2"  # control
        world.program()
        assert world.call("node-0", CLIENT) == ["internet", str(NAT), str(CLIENT)]


def test_icmp_errors_find_the_caller() -> None:
    with World() as world:
        world.program(world.forwarding("udp", 9))
        with world.datagrams("internet") as client:
            client.connect((str(BALANCER), 9))
            client.send(b"?")
            with pytest.raises(ConnectionRefusedError):
                client.recv(10)
        world.program(world.forwarding("udp", 9, ()))  # control: dropped, so nobody says anything
        with world.datagrams("internet") as client:
            client.settimeout(NOTHING_S)
            client.connect((str(BALANCER), 9))
            client.send(b"?")
            with pytest.raises(TimeoutError):
                client.recv(10)


def test_a_restart_finds_everything_there_and_changes_nothing() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_STREAM, 80)
        world.program(world.forwarding(), world.forwarding("udp", None, by_client=True))
        with world.connect("internet", BALANCER) as connection, Nftables(world.places["vpc"]) as door:
            before, generation = ask(connection), door.generation()
            world.kernel.close()
            world.kernel = Kernel(world.places["vpc"])
            world.program(world.forwarding(), world.forwarding("udp", None, by_client=True))
            assert door.generation() == generation
            assert ask(connection) == before


def test_what_somebody_else_changed_is_repaired() -> None:
    with World() as world:
        world.program(world.forwarding())
        with Nftables(world.places["vpc"]) as door:
            wanted = door.dump([ruleset.TABLE])
            door.apply([nft.FlushChain(ruleset.TABLE, "arrive"), nft.FlushSet(ruleset.TABLE, "slots")])
            assert door.dump([ruleset.TABLE]) != wanted
            world.program(world.forwarding())
            assert door.dump([ruleset.TABLE]) == wanted


def test_a_wire_that_was_pulled_and_put_back_is_noticed_and_its_routes_made_again() -> None:
    with World() as world:
        world.program(world.forwarding())
        with Network(world.places["vpc"]) as network:
            wanted = ruleset.ours(network.routes())
            links = LinkChanges(world.places["vpc"])
            assert not select.select([links], [], [], 0)[0]
            network.apply([change(Link("vm-1", up=False)), change(Link("vm-1", up=True))])
            network.apply([add(Route(IPv4Network(world.hosts[1].address), link="vm-1"))])
            assert select.select([links], [], [], 10)[0], "the kernel tells"
            links.drain()
            assert not select.select([links], [], [], 0)[0]
            links.close()
            assert ruleset.ours(network.routes()) != wanted, "the routes went with the wire"
            world.program(world.forwarding())
            assert ruleset.ours(network.routes()) != wanted, "control: what was acknowledged is believed"
            world.kernel.distrust()
            world.program(world.forwarding())
            assert ruleset.ours(network.routes()) == wanted


def test_nft_lists_it_as_we_print_it_and_loads_its_listing() -> None:
    with World() as world:
        world.program(world.forwarding(), world.forwarding("udp", None, by_client=True))

        def program(*words: str, text: str = "") -> str:
            command = ["nft", *words]
            return world.inside("vpc", lambda: subprocess.run(command, input=text, check=True, capture_output=True, text=True)).stdout

        with Nftables(world.places["vpc"]) as door:
            shown = nft.render(door.dump())
            assert program("-s", "list", "ruleset") == shown
            door.apply([nft.DeleteTable(ruleset.TABLE)])
            program("-f", "-", text=shown)
            assert nft.render(door.dump()) == shown


def test_no_new_connection_is_lost_while_pools_change() -> None:
    with World() as world:
        for host in world.hosts:
            world.serve(host.name, socket.SOCK_DGRAM, 53)
        groups = [world.hosts, world.hosts[:2], world.hosts[1:], world.hosts[:1]]
        world.program(world.forwarding("udp", 53))
        lost = 0
        for turn in range(40):
            clients = [world.datagrams("internet") for _ in range(20)]
            after = world.program(world.forwarding("udp", 53, groups[turn % 4]), finish=False)
            for client in clients:
                client.sendto(b"?", (str(BALANCER), 53))
            for client in clients:
                with client:
                    try:
                        client.recv(200)
                    except TimeoutError:
                        lost += 1
            world.kernel.finish(after)  # type: ignore[arg-type]
        assert lost == 0
        assert EXTERNAL.num_addresses == 256
