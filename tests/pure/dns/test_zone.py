"""Answers of cluster DNS, as the Kubernetes DNS specification has them."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import podwire.dns
from podwire.dns.desired import records
from podwire.dns.zone import TTL, NotOurs, Zone
from podwire.objects.codec import convert
from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.wire import dns

DOMAIN = dns.name("cluster.local")
RANGES = ("10.8.0.0/20", "10.4.0.0/14", "fd00::/64")


def service(name: str, **spec: Any) -> Service:
    body = {"clusterIP": "10.8.0.20", "ports": [{"name": "http", "port": 80}, {"port": 81}], **spec}
    return convert(Service, {"metadata": {"namespace": "shop", "name": name}, "spec": body})


def piece(name: str, *endpoints: dict[str, Any], ports: list[dict[str, Any]] | None = None, kind: str = "IPv4") -> EndpointSlice:
    tree = {"metadata": {"namespace": "shop", "name": name}, "addressType": kind, "endpoints": list(endpoints)}
    return convert(EndpointSlice, tree | {"ports": [{"name": "http", "port": 8080}] if ports is None else ports})


def zone(*services: tuple[Service, list[EndpointSlice]], **options: Any) -> Zone:
    made = Zone("cluster.local", RANGES, ("10.8.0.10",), **options)
    for value, slices in services:
        made.put(value.key, records(value, slices, DOMAIN))
    return made


def ask(server: Zone, name: str, kind: str = "A", *, udp: bool = True, edns: int | None = None) -> dns.Message:
    query = dns.Message(7, dns.RD, questions=(dns.Question(dns.name(name), dns.TYPES[kind]),), edns_size=edns)
    answer = server.respond(query.encode(), udp=udp)
    assert answer is not None
    message = dns.decode(answer)
    assert message.id == 7
    assert message.questions == query.questions
    assert message.flags & (dns.QR | dns.RD) == dns.QR | dns.RD
    return message


def addresses(message: dns.Message) -> list[str]:
    return [".".join(map(str, r.data)) for r in message.answers if r.type == dns.A]


def targets(message: dns.Message) -> list[tuple[int, int, str]]:
    found = [dns.read_srv(record.data) for record in message.answers]
    return [(weight, port, dns.text(target)) for _, weight, port, target in found]


def assert_nothing(message: dns.Message, rcode: int, owner: str = "cluster.local.") -> None:
    assert (message.rcode, message.answers) == (rcode, ())
    assert [(dns.text(r.name), r.type) for r in message.authorities] == [(owner, dns.SOA)]


USERS = (service("users"), [piece("a", {"addresses": ["10.4.0.5"]})])
HEADLESS = (
    service("db", clusterIP="None"),
    [
        piece("a", {"addresses": ["10.4.0.6"], "hostname": "db-0"}, {"addresses": ["10.4.0.7"], "conditions": {"ready": False}}),
        piece("b", {"addresses": ["10.4.1.6"]}),
    ],
)


def test_a_service_has_its_cluster_address() -> None:
    server = zone(USERS)
    message = ask(server, "users.shop.svc.cluster.local")
    assert addresses(message) == ["10.8.0.20"]
    assert message.answers[0].ttl == TTL == 30
    assert message.flags & dns.AA
    assert not message.flags & dns.RA
    assert ask(zone(USERS, recursive=True), "users.shop.svc.cluster.local").flags & dns.RA


def test_names_are_case_insensitive_and_the_answer_keeps_the_case() -> None:
    message = ask(zone(USERS), "uSERS.Shop.SVC.cluster.LOCAL")
    assert addresses(message) == ["10.8.0.20"]
    assert dns.text(message.answers[0].name) == "uSERS.Shop.SVC.cluster.LOCAL."


def test_what_exists_without_such_a_record_and_what_does_not_exist() -> None:
    server = zone(USERS)
    for name, kind in (
        ("users.shop.svc.cluster.local", "AAAA"),
        ("users.shop.svc.cluster.local", "TXT"),
        ("shop.svc.cluster.local", "A"),
        ("_tcp.users.shop.svc.cluster.local", "SRV"),
        ("svc.cluster.local", "A"),
        ("cluster.local", "A"),
        ("pod.cluster.local", "A"),
    ):
        assert_nothing(ask(server, name, kind), dns.NOERROR)
    for name in (
        "user.shop.svc.cluster.local",
        "users.svc.cluster.local",
        "x.users.shop.svc.cluster.local",
        "example.com.shop.svc.cluster.local",
    ):
        assert_nothing(ask(server, name), dns.NXDOMAIN)


def test_srv_records_of_named_ports_with_the_address_beside_them() -> None:
    message = ask(zone(USERS), "_http._tcp.users.shop.svc.cluster.local", "SRV")
    assert targets(message) == [(100, 80, "users.shop.svc.cluster.local.")]
    assert [(dns.text(r.name), r.data) for r in message.additionals] == [("users.shop.svc.cluster.local.", bytes((10, 8, 0, 20)))]
    assert_nothing(ask(zone(USERS), "_http._udp.users.shop.svc.cluster.local", "SRV"), dns.NXDOMAIN)


def test_reverse_names() -> None:
    server = zone(USERS, HEADLESS)
    assert [dns.text(r.data) for r in ask(server, "20.0.8.10.in-addr.arpa", "PTR").answers] == ["users.shop.svc.cluster.local."]
    assert [dns.text(r.data) for r in ask(server, "6.0.4.10.in-addr.arpa", "PTR").answers] == ["db-0.db.shop.svc.cluster.local."]
    assert_nothing(ask(server, "21.0.8.10.in-addr.arpa", "PTR"), dns.NXDOMAIN, "in-addr.arpa.")
    assert_nothing(ask(server, "7.0.4.10.in-addr.arpa", "PTR"), dns.NXDOMAIN, "in-addr.arpa.")
    with pytest.raises(NotOurs):
        ask(server, "8.8.8.8.in-addr.arpa", "PTR")


def test_an_address_may_be_an_endpoint_of_two_services() -> None:
    other = (service("replica", clusterIP="None"), [piece("c", {"addresses": ["10.4.0.6"], "hostname": "r"})])
    server = zone(HEADLESS, other)
    names = ["db-0.db.shop.svc.cluster.local.", "r.replica.shop.svc.cluster.local."]
    assert [dns.text(r.data) for r in ask(server, "6.0.4.10.in-addr.arpa", "PTR").answers] == names
    server.put("shop/db", {})
    assert [dns.text(r.data) for r in ask(server, "6.0.4.10.in-addr.arpa", "PTR").answers] == names[1:]
    server.put("shop/replica", {})
    assert_nothing(ask(server, "6.0.4.10.in-addr.arpa", "PTR"), dns.NXDOMAIN, "in-addr.arpa.")


def test_a_headless_service_stands_for_its_ready_endpoints() -> None:
    server = zone(HEADLESS)
    assert sorted(addresses(ask(server, "db.shop.svc.cluster.local"))) == ["10.4.0.6", "10.4.1.6"]
    assert addresses(ask(server, "db-0.db.shop.svc.cluster.local")) == ["10.4.0.6"]
    assert addresses(ask(server, "10-4-1-6.db.shop.svc.cluster.local")) == ["10.4.1.6"]
    message = ask(server, "_http._tcp.db.shop.svc.cluster.local", "SRV")
    assert targets(message) == [(50, 8080, "db-0.db.shop.svc.cluster.local."), (50, 8080, "10-4-1-6.db.shop.svc.cluster.local.")]
    assert len(message.additionals) == 2


def test_addresses_come_in_a_turning_order() -> None:
    server = zone(HEADLESS)
    firsts = {addresses(ask(server, "db.shop.svc.cluster.local"))[0] for _ in range(2)}
    assert firsts == {"10.4.0.6", "10.4.1.6"}


def test_a_headless_service_without_ready_endpoints_has_no_name() -> None:
    unready = (service("db", clusterIP="None"), [piece("a", {"addresses": ["10.4.0.7"], "conditions": {"ready": False}})])
    for server in (zone(unready), zone((unready[0], []))):
        assert_nothing(ask(server, "db.shop.svc.cluster.local"), dns.NXDOMAIN)


def test_a_headless_service_needs_no_ports() -> None:
    server = zone((service("db", clusterIP="None", ports=[]), [piece("a", {"addresses": ["10.4.0.6"]}, ports=[])]))
    assert addresses(ask(server, "db.shop.svc.cluster.local")) == ["10.4.0.6"]


def test_an_external_name_is_an_alias() -> None:
    out = service("out", type="ExternalName", clusterIP="", externalName="www.example.com")
    near = service("near", type="ExternalName", clusterIP="", externalName="users.shop.svc.cluster.local")
    loop = service("loop", type="ExternalName", clusterIP="", externalName="loop.shop.svc.cluster.local")
    server = zone((out, []), (near, []), (loop, []), USERS)
    for kind in ("A", "AAAA", "CNAME"):
        [alias] = ask(server, "out.shop.svc.cluster.local", kind).answers
        assert (alias.type, dns.text(alias.data)) == (dns.CNAME, "www.example.com.")
    message = ask(server, "near.shop.svc.cluster.local")
    assert [(dns.text(r.name), r.type) for r in message.answers] == [
        ("near.shop.svc.cluster.local.", dns.CNAME),
        ("users.shop.svc.cluster.local.", dns.A),
    ]
    assert len(ask(server, "loop.shop.svc.cluster.local").answers) == 1


def test_the_zone_itself() -> None:
    server = zone()
    [version] = ask(server, "dns-version.cluster.local", "TXT").answers
    assert version.data == b"\x051.1.0"
    assert ask(server, "cluster.local", "SOA").answers[0].type == dns.SOA
    message = ask(server, "cluster.local", "NS")
    assert dns.text(message.answers[0].data) == "ns.dns.cluster.local."
    assert addresses(ask(server, "ns.dns.cluster.local")) == ["10.8.0.10"]


def test_pods_by_their_address() -> None:
    server = zone(service_pair := USERS)
    assert service_pair
    assert addresses(ask(server, "10-4-0-5.shop.pod.cluster.local")) == ["10.4.0.5"]
    assert ask(server, "fd00--5.shop.pod.cluster.local", "AAAA").answers[0].data[-1] == 5
    assert_nothing(ask(server, "10-4-0-5.shop.pod.cluster.local", "AAAA"), dns.NOERROR)
    assert_nothing(ask(server, "web.shop.pod.cluster.local"), dns.NXDOMAIN)


def test_both_families() -> None:
    dual = service("dual", clusterIPs=["10.8.0.21", "fd00::21"])
    server = zone((dual, []))
    assert addresses(ask(server, "dual.shop.svc.cluster.local")) == ["10.8.0.21"]
    assert ask(server, "dual.shop.svc.cluster.local", "AAAA").answers[0].data[-1] == 0x21
    reverse = "1.2." + "0." * 26 + "0.0.d.f.ip6.arpa"
    assert [dns.text(r.data) for r in ask(server, reverse, "PTR").answers] == ["dual.shop.svc.cluster.local."]
    assert_nothing(ask(server, reverse.replace("1.2", "2.2", 1), "PTR"), dns.NXDOMAIN, "ip6.arpa.")


def test_any_gets_one_of_what_there_is() -> None:
    assert addresses(ask(zone(USERS), "users.shop.svc.cluster.local", "ANY")) == ["10.8.0.20"]


def test_names_of_others() -> None:
    for name in ("example.com", "local", "notcluster.local"):
        with pytest.raises(NotOurs):
            ask(zone(USERS), name)


MANY = (service("many", clusterIP="None"), [piece("a", *({"addresses": [f"10.4.{i}.{j}"]} for i in range(3) for j in range(1, 101)))])


def test_an_answer_that_does_not_fit_is_cut_and_says_so() -> None:
    server = zone(MANY)
    name = "many.shop.svc.cluster.local"
    small = ask(server, name)
    assert small.flags & dns.TC
    assert 20 < len(small.answers) < 32
    larger = ask(server, name, edns=4096)
    assert larger.flags & dns.TC
    assert 60 < len(larger.answers) < 80
    whole = ask(server, name, udp=False)
    assert not whole.flags & dns.TC
    assert len(set(addresses(whole))) == 300
    assert ask(server, "_http._tcp.many.shop.svc.cluster.local", "SRV").flags & dns.TC


def test_edns() -> None:
    server = zone(USERS)
    assert ask(server, "users.shop.svc.cluster.local").edns_size is None
    message = ask(server, "users.shop.svc.cluster.local", edns=1400)
    assert message.edns_size == 1232
    assert addresses(message) == ["10.8.0.20"]
    future = dns.Message(7, 0, questions=(dns.Question(dns.name("cluster.local"), dns.SOA),), edns_size=1232).encode()
    future = future[:-5] + b"\1" + future[-4:]
    answer = server.respond(future, udp=True)
    assert answer is not None
    assert dns.decode(answer).rcode == dns.BADVERS


def test_before_the_first_sync() -> None:
    query = dns.Message(7, dns.RD, questions=(dns.Question(dns.name("users.shop.svc.cluster.local"), dns.A),), edns_size=1232)
    answer = zone().respond(query.encode(), udp=True, synced=False)
    assert answer is not None
    assert dns.decode(answer).rcode == dns.SERVFAIL
    assert dns.decode(answer).questions == query.questions


def test_messages_that_are_no_questions() -> None:
    server = zone(USERS)
    question = dns.Question(dns.name("users.shop.svc.cluster.local"), dns.A)
    assert server.respond(b"short", udp=True) is None
    assert server.respond(dns.Message(1, dns.QR, questions=(question,)).encode(), udp=True) is None

    def rcode(message: dns.Message | bytes) -> int:
        answer = server.respond(message if isinstance(message, bytes) else message.encode(), udp=True)
        assert answer is not None
        return dns.decode(answer).rcode

    assert rcode(dns.Message(1, 0x2000, questions=(question,))) == dns.NOTIMP
    assert rcode(dns.Message(1, 0, questions=(question, question))) == dns.FORMERR
    assert rcode(dns.Message(1, 0)) == dns.FORMERR
    assert rcode(dns.Message(1, 0, questions=(question,)).encode()[:-3]) == dns.FORMERR
    assert rcode(dns.HEADER.pack(1, 0, 1, 0, 0, 0) + b"\xc0\x0c" + b"\0\1\0\1") == dns.FORMERR
    zero = dns.from_labels([b"a\0b", b"shop", b"svc", b"cluster", b"local"])
    assert rcode(dns.Message(1, 0, questions=(dns.Question(zero, dns.A),))) == dns.FORMERR
    extra = dns.Record(dns.name("x"), dns.A, 1, b"abcd")
    assert rcode(dns.Message(1, 0, questions=(question,), additionals=(extra, extra))) == dns.NOERROR


@given(st.binary(max_size=80))
def test_any_bytes_get_an_answer_or_none(data: bytes) -> None:
    server = zone(USERS)
    try:
        answer = server.respond(data, udp=True)
    except NotOurs:
        return
    if answer is not None:
        assert dns.decode(answer).flags & dns.QR


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=12))
def test_after_any_changes_the_zone_is_as_if_made_anew(steps: list[tuple[int, int]]) -> None:
    kinds: list[list[tuple[Service, list[EndpointSlice]]]] = [
        [USERS, HEADLESS, (service(name, type="ExternalName", externalName="a.example"), []), (service(name, clusterIP="None"), [])]
        for name in ("a", "b", "c", "d")
    ]
    changing, state = zone(), {}
    for which, kind in steps:
        name = "abcd"[which]
        if kind == 4:
            state.pop(name, None)
            changing.put(f"shop/{name}", {})
        else:
            template, slices = kinds[which][kind]
            value = convert(Service, {"metadata": {"namespace": "shop", "name": name}})
            made = records(type(template)(metadata=value.metadata, spec=template.spec), slices, DOMAIN)
            changing.put(f"shop/{name}", made)
            state[name] = made
    fresh = zone()
    for name, made in state.items():
        fresh.put(f"shop/{name}", made)
    assert changing._names == fresh._names
    for turned in (changing, fresh):
        for answer in turned._answers.values():
            answer.turn = 0
    assert changing._answers == fresh._answers
    assert changing._targets == fresh._targets


def test_the_readme_runs() -> None:
    [folder] = podwire.dns.__path__
    assert doctest.testfile(f"{folder}/README.md", module_relative=False).failed == 0
