"""What a Pod is on its node: who plays it, where stand-ins listen, how names resolve in it."""

from __future__ import annotations

import pytest

from podwire.objects.core import (
    Container,
    ContainerPort,
    GRPCAction,
    HostAlias,
    HTTPGetAction,
    Pod,
    PodDNSConfig,
    PodDNSConfigOption,
    PodSpec,
    Probe,
    Service,
    ServicePort,
    ServiceSpec,
    TCPSocketAction,
)
from podwire.objects.meta import ObjectMeta
from podwire.pods import desired
from podwire.pods.desired import NodeFacts, Player
from podwire.pods.standins.messages import Port

FACTS = NodeFacts(
    name="node-1", ips=("10.128.0.2",), zone="z", cluster_dns=("10.8.0.10",), resolv_conf="nameserver 1.1.1.1\nsearch corp\noptions rotate"
)


def pod(*containers: Container, labels: dict[str, str] | None = None, **spec: object) -> Pod:
    meta = ObjectMeta(name="web", namespace="shop", uid="u", labels=labels or {"app": "web"})
    return Pod(metadata=meta, spec=PodSpec(containers=containers, **spec))  # type: ignore[arg-type]


def service(*ports: ServicePort, namespace: str = "shop", selector: dict[str, str] | None = None) -> Service:
    spec = ServiceSpec(selector={"app": "web"} if selector is None else selector, ports=ports)
    return Service(metadata=ObjectMeta(name="web", namespace=namespace), spec=spec)


@pytest.mark.parametrize(
    ("image", "who"),
    [
        ("podwire.dev/machine", Player.MACHINE),
        ("podwire.dev/machine:v1", Player.MACHINE),
        ("podwire.dev/machine@sha256:0", Player.MACHINE),
        ("podwire.dev/machinery", Player.STAND_IN),
        ("podwire.dev/machine/evil", Player.STAND_IN),
        ("docker.io/podwire.dev/machine", Player.STAND_IN),
        ("nginx", Player.STAND_IN),
        ("", Player.STAND_IN),
    ],
)
def test_the_image_alone_decides(image: str, who: Player) -> None:
    assert desired.player(Container(name="c", image=image, command=("sh",))) is who


def test_a_stand_in_listens_where_anything_says() -> None:
    container = Container(
        name="c",
        image="shop/server",
        ports=(ContainerPort(name="http", container_port=80), ContainerPort(container_port=53, protocol="UDP")),
        readiness_probe=Probe(http_get=HTTPGetAction(port="http")),
        liveness_probe=Probe(tcp_socket=TCPSocketAction(port=81)),
        startup_probe=Probe(grpc=GRPCAction(port=82)),
    )
    services = [
        service(ServicePort(port=1, target_port="http"), ServicePort(port=2, target_port=90), ServicePort(port=91)),
        service(ServicePort(port=3, target_port="missing"), namespace="shop"),
        service(ServicePort(port=3, target_port=99), namespace="other"),
        service(ServicePort(port=3, target_port=98), selector={"app": "db"}),
        service(ServicePort(port=3, target_port=97), selector={}),
    ]
    assert desired.standin_ports(pod(container), services) == (
        Port("TCP", 80, "c"),
        Port("TCP", 81, "c"),
        Port("TCP", 82, "c"),
        Port("TCP", 90),
        Port("TCP", 91),
        Port("UDP", 53, "c"),
    )


def test_a_probe_of_another_host_opens_nothing() -> None:
    probe = Probe(http_get=HTTPGetAction(port=80, host="10.0.0.1"))
    assert desired.standin_ports(pod(Container(name="c", image="x", readiness_probe=probe)), []) == ()


def test_what_a_program_of_the_machine_may_listen_on_is_left_to_it() -> None:
    machine = Container(name="m", image="podwire.dev/machine", ports=(ContainerPort(container_port=80),))
    proxy = Container(name="p", image="envoy", ports=(ContainerPort(container_port=81),))
    selecting = [service(ServicePort(port=1, target_port=90))]
    assert desired.standin_ports(pod(machine), selecting) == ()
    assert desired.standin_ports(pod(machine, proxy), selecting) == (Port("TCP", 81, "p"),)


def test_sidecars_listen_and_init_containers_do_not() -> None:
    sidecar = Container(name="s", image="x", restart_policy="Always", ports=(ContainerPort(container_port=1),))
    first = Container(name="f", image="x", ports=(ContainerPort(container_port=2),))
    main = Container(name="m", image="x")
    assert desired.standin_ports(pod(main, init_containers=(sidecar, first)), []) == (Port("TCP", 1, "s"),)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({}, "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.8.0.10\noptions ndots:5\n"),
        ({"dns_policy": "Default"}, "search corp\nnameserver 1.1.1.1\noptions rotate\n"),
        ({"host_network": True}, "search corp\nnameserver 1.1.1.1\noptions rotate\n"),
        (
            {"host_network": True, "dns_policy": "ClusterFirstWithHostNet"},
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.8.0.10\noptions ndots:5\n",
        ),
        ({"dns_policy": "None", "dns_config": PodDNSConfig(nameservers=("9.9.9.9",))}, "nameserver 9.9.9.9\n"),
        (
            {
                "dns_config": PodDNSConfig(
                    searches=("a",), options=(PodDNSConfigOption(name="ndots", value="2"), PodDNSConfigOption(name="edns0"))
                )
            },
            "search shop.svc.cluster.local svc.cluster.local cluster.local a\nnameserver 10.8.0.10\noptions ndots:2 edns0\n",
        ),
    ],
)
def test_resolv_conf_follows_the_policy(spec: dict[str, object], text: str) -> None:
    assert desired.resolv_conf(pod(**spec), FACTS) == text


def test_names() -> None:
    plain = pod(host_aliases=(HostAlias(ip="1.2.3.4", hostnames=("a", "b")),))
    assert desired.hostname(plain) == "web"
    assert desired.hosts(plain, FACTS, ["10.4.0.5"]).endswith("10.4.0.5\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n")
    named = pod(hostname="first", subdomain="db")
    assert "10.4.0.5\tfirst.db.shop.svc.cluster.local\tfirst\n" in desired.hosts(named, FACTS, ["10.4.0.5"])
    assert desired.kernel_hostname(pod(subdomain="db", set_hostname_as_fqdn=True), FACTS) == "web.db.shop.svc.cluster.local"
    assert desired.kernel_hostname(pod(host_network=True), FACTS) == "node-1"
    assert len(desired.hostname(pod(hostname="x" * 70))) == 63
