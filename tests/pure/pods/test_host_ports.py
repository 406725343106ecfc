"""Which ports of the node lead to a Pod."""

from __future__ import annotations

from ipaddress import ip_address

from podwire.objects.core import Container, ContainerPort, Pod, PodSpec
from podwire.objects.meta import ObjectMeta
from podwire.pods.cni.configuration import PortMapping
from podwire.pods.host_ports import mappings, publication
from podwire.pods.wiring import port_of


def pod(*ports: ContainerPort, init: tuple[Container, ...] = (), host_network: bool = False) -> Pod:
    spec = PodSpec(containers=(Container(name="c", ports=ports),), init_containers=init, host_network=host_network)
    return Pod(metadata=ObjectMeta(name="web", namespace="default", uid="u"), spec=spec)


WEB = ContainerPort(container_port=8080, host_port=80)


def test_host_ports_of_all_containers_that_run() -> None:
    side = Container(name="side", restart_policy="Always", ports=(ContainerPort(container_port=9, host_port=99, protocol="UDP"),))
    first = Container(name="first", ports=(ContainerPort(container_port=1, host_port=11),))
    plain = ContainerPort(container_port=70)
    found = mappings(pod(WEB, plain, init=(first, side)))
    assert found == (PortMapping(99, 9, "udp", None), PortMapping(80, 8080, "tcp", None))


def test_an_address_of_the_node_or_all_of_them() -> None:
    one = ContainerPort(container_port=8080, host_port=80, host_ip="10.128.0.2")
    every = ContainerPort(container_port=8080, host_port=81, host_ip="0.0.0.0")
    assert mappings(pod(one, every)) == (
        PortMapping(80, 8080, "tcp", ip_address("10.128.0.2")),
        PortMapping(81, 8080, "tcp", ip_address("0.0.0.0")),
    )


def test_a_pod_in_the_network_of_the_node_needs_none() -> None:
    assert publication(pod(WEB, host_network=True), [ip_address("10.4.0.5")]) is None
    assert publication(pod(ContainerPort(container_port=8080)), [ip_address("10.4.0.5")]) is None
    made = publication(pod(WEB), [ip_address("10.4.0.5")])
    assert made is not None
    assert (made.owner, made.addresses, made.bridged) == (port_of("u"), (ip_address("10.4.0.5"),), ())
