"""The CNI plugin's pure parts: configurations are refused in the words of their fields; the tables hold what is asked for, no more."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire import nft
from podwire.pods.cni import configuration, results
from podwire.pods.cni.configuration import PortMapping
from podwire.pods.cni.errors import CniError, HostPortTaken
from podwire.pods.cni.ruleset import NAMES, Publication, with_publication, without

BASE = {"cniVersion": "1.1.0", "name": "net", "type": "podwire-cni", "ipam": {"subnet": "10.22.0.0/24"}}


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"cniVersion": "0.2.0"}, 1, "the configuration is '0.2.0', the plugin supports 0.3.0, 0.3.1"),
        ({"hairpin": True}, 2, "unsupported field 'hairpin': True"),
        ({"name": "a/b"}, 7, "name: expected letters"),
        ({"mode": "vlan"}, 7, "mode: expected one of routed, bridge, ptp, chained, got 'vlan'"),
        ({"mtu": 40}, 7, "mtu: expected a number from 68 to 65535, got 40"),
        ({"mtu": "1500"}, 7, "mtu: expected int, got '1500'"),
        ({"bridge": "a-name-that-is-too-long"}, 7, "bridge: expected the name of an interface"),
        ({"ipam": {}}, 7, "ipam.ranges: expected [["),
        ({"ipam": {"type": "../x"}}, 7, "ipam.type: expected the name of a plugin"),
        ({"ipam": {"subnet": "10.22.0.1/24"}}, 7, "ipam.ranges[0][0].subnet: expected a range such as 10.4.0.0/24, got '10.22.0.1/24'"),
        ({"ipam": {"subnet": "10.22.0.0/31"}}, 7, "10.22.0.0/31 is too small"),
        ({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}]]}}, 7, "rangeEnd: 10.2.0.1 is not in 10.1.0.0/24"),
        ({"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}, 7, "one list of ranges for each address family"),
        ({"runtimeConfig": {"portMappings": [{"hostPort": 0, "containerPort": 80}]}}, 7, "portMappings[0].hostPort: expected a port"),
        (
            {"runtimeConfig": {"portMappings": [{"hostPort": 1, "containerPort": 2, "protocol": "icmp"}]}},
            7,
            "expected one of tcp, udp, sctp",
        ),
        ({"runtimeConfig": {"bandwidth": {"ingressRate": 5}}}, 7, "a rate and a burst go together"),
        ({"runtimeConfig": {"mac": "xx"}}, 7, "mac: expected a MAC address"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_field(fields: dict[str, Any], code: int, words: str) -> None:
    with pytest.raises(CniError) as refused:
        configuration.read(BASE | fields, {})
    assert refused.value.code == code
    assert words in refused.value.message
    assert refused.value.tree("1.0.0")["cniVersion"] == "1.0.0"


def test_names_of_other_peoples_fields_are_left_alone() -> None:
    assert configuration.read(BASE | {"example.com/note": 1}, {}).name == "net"


def test_a_result_is_read_back_from_every_version() -> None:
    result = results.Result(
        (results.Interface("cbr0", "0a:58:00:00:00:01"), results.Interface("eth0", "0a:58:00:00:00:02", 1500, "/run/netns/x")),
        (results.Ip(configuration.ip_interface("10.22.0.2/24"), ip_address("10.22.0.1"), 1),),
        (configuration.Route(ip_network("0.0.0.0/0"), ip_address("10.22.0.1")),),
        {"nameservers": ["10.8.0.10"]},
    )
    for version in configuration.VERSIONS:
        read = results.read(result.tree(version))
        assert (read.ips, read.routes, read.dns) == (result.ips, result.routes, result.dns)
        interface, ips = read.sandboxed("eth0")
        assert interface is not None
        assert (interface.mac, ips) == ("0a:58:00:00:00:02", result.ips)
    with pytest.raises(CniError, match="not as the specification has it"):
        results.read({"ips": [{"gateway": "10.22.0.1"}]})


_PUBLICATIONS = st.builds(
    lambda number, ports, masqueraded: Publication(
        f"veth{number}",
        (ip_address(f"10.{number % 2}.0.{number + 2}"), ip_address(f"fd00::{number + 2}")),
        tuple(PortMapping(8000 + 10 * number + port, 80, "tcp", ip_address("192.0.2.1") if port % 2 else None) for port in ports),
        (ip_network(f"10.{number % 2}.0.0/16"),) if number % 2 else (),
        (ip_network(f"10.{number % 2}.0.0/16"),) if masqueraded else (),
    ),
    st.integers(0, 5),
    st.sets(st.integers(0, 5)),
    st.booleans(),
)


@given(moves=st.lists(_PUBLICATIONS, max_size=8))
def test_the_tables_are_those_of_the_attachments_that_are_left(moves: list[Publication]) -> None:
    """Whatever came and went before: the same as of those alone; and every listing reads back as it was."""
    tables = nft.Ruleset()
    for one in moves:
        tables = with_publication(tables, one)
    last = {one.owner: one for one in moves}
    kept = [one for number, one in enumerate(last.values()) if number % 2]
    for number, owner in enumerate(last):
        if not number % 2:
            tables = without(tables, owner)
    alone = nft.Ruleset()
    for one in kept:
        alone = with_publication(alone, one)
    assert {table.id: table for table in tables.tables} == {table.id: table for table in alone.tables}
    assert {table.id for table in tables.tables} <= set(NAMES)
    assert nft.render(nft.parse(nft.render(tables))) == nft.render(tables)


def test_a_host_port_leads_to_one_container() -> None:
    mapping = (PortMapping(8080, 80, "tcp", None),)
    tables = with_publication(nft.Ruleset(), Publication("veth1", (ip_address("10.0.0.2"),), mapping))
    with pytest.raises(HostPortTaken, match="host port 8080/tcp leads to another container"):
        with_publication(tables, Publication("veth2", (ip_address("10.0.0.3"),), mapping))
