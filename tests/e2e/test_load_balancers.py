"""External load balancers as users of other local clusters miss them: changed while they are used, addresses that are shared or chosen,
callers that are seen as they are, and callers that are kept out, over UDP too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from e2e.lab import Cluster, until

NAMESPACE = "balanced"
CLIENT = "198.51.100.10"
_ASK_UDP = """
import socket, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(1)
for _ in range(int(sys.argv[3])):
    asking.sendto(b"clientip", (sys.argv[1], int(sys.argv[2])))
    try:
        print(asking.recv(1000).decode().rpartition(":")[0])
        break
    except (TimeoutError, ConnectionRefusedError):
        pass
else:
    print("no answer")
"""
_ASK_TCP = """
import sys, urllib.error, urllib.request
try:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    print(opener.open(f"http://{sys.argv[1]}:{sys.argv[2]}/clientip", timeout=2).read().decode().rpartition(":")[0])
except OSError:
    print("no answer")
"""
_STAY = """
import socket, sys
connected = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
print("connected", flush=True)
for line in sys.stdin:
    connected.sendall(b"GET /hostname HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(connected.recv(4096).decode().split("\\r\\n")[0], flush=True)
"""


@pytest.fixture
def balanced(cluster: Cluster) -> Iterator[Cluster]:
    """Two web servers that answer TCP and UDP, in a namespace of their own."""
    cluster.kubectl("create", "namespace", NAMESPACE)
    container = {
        "name": "main",
        "image": "registry.k8s.io/e2e-test-images/agnhost:2.47",
        "args": ["netexec", "--http-port=8080", "--udp-port=8080"],
        "ports": [{"containerPort": 8080}, {"containerPort": 8080, "protocol": "UDP"}],
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    cluster.kubectl("-n", NAMESPACE, "create", "-f", "-", stdin=json.dumps(deployment))
    cluster.ready(NAMESPACE)
    try:
        yield cluster
    finally:
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")
        cluster.kubectl("delete", "addresses", "--all", "--timeout=60s")


def expose(cluster: Cluster, name: str, *ports: tuple[int, str], annotations: dict[str, str] | None = None, **more: Any) -> None:
    listed = [{"name": f"{protocol}-{port}".lower(), "port": port, "targetPort": 8080, "protocol": protocol} for port, protocol in ports]
    spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": listed, **more}
    tree = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations or {}}, "spec": spec}
    cluster.kubectl("-n", NAMESPACE, "apply", "--server-side", "-f", "-", stdin=json.dumps(tree))


def address(cluster: Cluster, name: str) -> str:
    def look() -> Any:
        found = cluster.get("service", name, "-n", NAMESPACE)["status"]["loadBalancer"].get("ingress", [])
        return found and found[0]["ip"]

    return str(until(look, f"an address of {name}"))


def asked(cluster: Cluster, where: str, port: int, protocol: str = "TCP", tries: int = 1) -> str:
    """Whom the server saw, asked from the internet; or ``no answer``."""
    program, words = (_ASK_TCP, [where, str(port)]) if protocol == "TCP" else (_ASK_UDP, [where, str(port), str(tries)])
    return cluster.exec("internet", cluster.user.python, "-S", "-c", program, *words).stdout.strip()


def answers(cluster: Cluster, where: str, port: int, protocol: str = "TCP") -> str:
    def look() -> str:
        found = asked(cluster, where, port, protocol)
        return "" if found == "no answer" else found

    return str(until(look, f"an answer from {where}:{port} ({protocol})"))


def events(cluster: Cluster, name: str) -> str:
    return str(cluster.kubectl("-n", NAMESPACE, "get", "events", f"--field-selector=involvedObject.name={name}").stdout)


def test_ports_come_and_go_while_connections_last(balanced: Cluster) -> None:
    expose(balanced, "web", (80, "TCP"))
    where = address(balanced, "web")
    answers(balanced, where, 80)
    command: Sequence[str] = (balanced.user.python, "-S", "-c", _STAY, where, "80")
    words = [str(balanced.user.python).removesuffix("python") + "podwire", "exec", "--name", balanced.name, "internet", "--", *command]
    with balanced.user.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as staying:
        assert staying.stdin is not None
        assert staying.stdout is not None

        def goes_on() -> None:
            assert staying.stdin is not None
            assert staying.stdout is not None
            staying.stdin.write("\n")
            staying.stdin.flush()
            assert staying.stdout.readline().strip() == "HTTP/1.1 200 OK"

        assert staying.stdout.readline().strip() == "connected"
        goes_on()
        assert asked(balanced, where, 81) == "no answer"
        expose(balanced, "web", (80, "TCP"), (81, "TCP"), (80, "UDP"))
        answers(balanced, where, 81)
        answers(balanced, where, 80, "UDP")
        goes_on()
        expose(balanced, "web", (80, "TCP"))
        until(lambda: asked(balanced, where, 81) == "no answer", "the port that was taken away is shut")
        until(lambda: asked(balanced, where, 80, "UDP") == "no answer", "the protocol that was taken away is shut")
        goes_on()
        assert address(balanced, "web") == where
        staying.stdin.close()


def test_many_have_one_port_and_one_address_has_both_protocols(balanced: Cluster) -> None:
    for name in ("one", "two"):
        expose(balanced, name, (80, "TCP"), (80, "UDP"))
    first, second = (address(balanced, name) for name in ("one", "two"))
    assert first != second
    for where in (first, second):
        for protocol in ("TCP", "UDP"):
            answers(balanced, where, 80, protocol)


def test_addresses_that_a_person_has_reserved(balanced: Cluster) -> None:
    named = {"networking.gke.io/load-balancer-ip-addresses": "shared-ip"}
    expose(balanced, "early", (80, "TCP"), annotations=named)
    until(lambda: 'the Address "shared-ip" is not reserved' in events(balanced, "early"), "it is said what is missing")
    reserved = {"apiVersion": "compute.podwire.dev/v1", "kind": "Address", "metadata": {"name": "shared-ip"}, "spec": {}}
    balanced.kubectl("create", "-f", "-", stdin=json.dumps(reserved))
    where = balanced.get("address", "shared-ip")["spec"]["address"]
    assert address(balanced, "early") == where
    expose(balanced, "beside", (80, "UDP"), loadBalancerIP=where)
    expose(balanced, "other", (81, "TCP"), annotations=named)
    assert [address(balanced, name) for name in ("beside", "other")] == [where, where]
    for port, protocol in ((80, "TCP"), (80, "UDP"), (81, "TCP")):
        answers(balanced, where, port, protocol)
    expose(balanced, "late", (443, "TCP"), (80, "TCP"), annotations=named)
    words = f"'{where}'. Specified IP address is in-use and would result in a conflict., invalid"
    until(lambda: words in events(balanced, "late"), "whoever wants what another one has is told so")
    balanced.kubectl("-n", NAMESPACE, "delete", "service", "early")
    assert address(balanced, "late") == where  # it is free now
    answers(balanced, where, 443)
    # Without the annotation a Service has an address of its own, and the reserved one stays.
    expose(balanced, "other", (81, "TCP"))
    until(lambda: address(balanced, "other") != where, "an address of its own")
    answers(balanced, address(balanced, "other"), 81)
    balanced.kubectl("-n", NAMESPACE, "delete", "service", "beside", "late", "other")
    assert balanced.get("addresses")["items"] == [balanced.get("address", "shared-ip")]


def test_callers_are_seen_as_they_are_or_kept_out(balanced: Cluster) -> None:
    expose(balanced, "seen", (80, "TCP"), (80, "UDP"), externalTrafficPolicy="Local")
    where = address(balanced, "seen")
    for protocol in ("TCP", "UDP"):
        assert answers(balanced, where, 80, protocol) == CLIENT
    ranges = ["192.0.2.0/24"]
    expose(balanced, "seen", (80, "TCP"), (80, "UDP"), externalTrafficPolicy="Local", loadBalancerSourceRanges=ranges)
    for protocol in ("TCP", "UDP"):
        until(lambda protocol=protocol: asked(balanced, where, 80, protocol, 2) == "no answer", f"{protocol} is kept out")
    expose(balanced, "seen", (80, "TCP"), (80, "UDP"), externalTrafficPolicy="Local", loadBalancerSourceRanges=[*ranges, f"{CLIENT}/32"])
    for protocol in ("TCP", "UDP"):
        assert answers(balanced, where, 80, protocol) == CLIENT
