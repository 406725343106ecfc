"""Which program a stand-in behaves as, where that listens, and when it has done."""

from __future__ import annotations

import pytest

from podwire.objects.core import Container, ContainerPort, EnvVar, Pod, PodSpec, Service, ServicePort, ServiceSpec
from podwire.objects.meta import ObjectMeta
from podwire.pods import desired
from podwire.pods.desired import NodeFacts
from podwire.pods.standins import personalities
from podwire.pods.standins.directions import Directions
from podwire.pods.standins.messages import Port

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (AGNHOST, "agnhost"),
        ("nginx", "nginx"),
        ("docker.io/library/nginx:1.27@sha256:0", "nginx"),
        ("localhost:5000/nginx", "nginx"),
        ("example.com/nginx/other:nginx", ""),
        ("us-docker.pkg.dev/google-samples/containers/gke/hello-app:2.0", "hello-app"),
        ("redis:alpine", "redis"),
        ("", ""),
    ],
)
def test_the_last_element_of_the_name_decides(image: str, kind: str) -> None:
    assert personalities.kind_of(image) == kind


def ports(image: str, *args: str, declared: tuple[int, ...] = (), env: dict[str, str] | None = None, **more: object) -> list[str]:
    container = Container(
        name="c",
        image=image,
        args=args,
        ports=tuple(ContainerPort(container_port=port) for port in declared),
        env=tuple(EnvVar(name=name, value=value) for name, value in (env or {}).items()),
        **more,  # type: ignore[arg-type]
    )
    service = Service(
        metadata=ObjectMeta(name="s", namespace="default"),
        spec=ServiceSpec(selector={"app": "web"}, ports=(ServicePort(port=9999),)),
    )
    pod = Pod(metadata=ObjectMeta(name="p", namespace="default", uid="u", labels={"app": "web"}), spec=PodSpec(containers=(container,)))
    return [str(port) for port in desired.standin_ports(pod, [service])]


def test_agnhost_listens_where_its_arguments_say_and_nowhere_else() -> None:
    assert ports(AGNHOST, "netexec", declared=(70,)) == ["TCP/8080", "UDP/8081"]
    assert ports(AGNHOST, "netexec", "--http-port=80", "--udp-port", "81", "--sctp-port=82") == ["SCTP/82", "TCP/80", "UDP/81"]
    assert ports(AGNHOST, "netexec", "--udp-port=-1") == ["TCP/8080"]
    assert ports(AGNHOST, command=("/agnhost", "serve-hostname", "--udp", "--tcp", "--http=false", "--port=80")) == ["TCP/80", "UDP/80"]
    assert ports(AGNHOST, "serve-hostname") == ["TCP/9376"]
    assert ports(AGNHOST, "test-webserver") == ["TCP/80"]
    assert ports(AGNHOST, "liveness") == ["TCP/8080"]
    env = {"SERVE_PORT_80": "a", "SERVE_TLS_PORT_81": "b", "SERVE_SCTP_PORT_82": "c", "SERVE_PORT_0": "d", "OTHER": "e"}
    assert ports(AGNHOST, "porter", env=env) == ["SCTP/82", "TCP/80", "TCP/81"]
    assert ports(AGNHOST, "pause", declared=(80,)) == []
    assert ports(AGNHOST) == []


def test_others_listen_on_their_usual_port_too() -> None:
    assert ports("nginx") == ["TCP/80", "TCP/9999"]
    assert ports("redis:7", "--port", "7000", declared=(1,)) == ["TCP/1", "TCP/7000", "TCP/9999"]
    assert ports("hashicorp/http-echo", "-listen=:81", "-text=x") == ["TCP/81", "TCP/9999"]
    assert ports("hello-app:1.0", env={"PORT": "81"}) == ["TCP/81", "TCP/9999"]
    assert ports("shop/server", declared=(1,)) == ["TCP/1", "TCP/9999"]


def test_a_clients_shell_listens_where_its_command_says() -> None:
    assert ports("busybox", "sleep", "3600", declared=(80,)) == []
    assert ports("busybox:1.36", command=("sh", "-c", "while true; do sleep 1; done")) == []
    assert ports("busybox", command=("sh", "-c", "nc -lk -p 8080 -e cat")) == ["TCP/8080", "TCP/9999"]
    assert ports("busybox", command=("httpd", "-f", "-p", "81")) == ["TCP/81", "TCP/9999"]
    assert ports("busybox", "nc", "-u", "-l", "53") == ["TCP/9999", "UDP/53"]
    assert ports("registry.k8s.io/pause:3.10", declared=(80,)) == []


@pytest.mark.parametrize(
    ("kind", "command", "arguments", "expected"),
    [
        ("busybox", (), (), ("sh",)),
        ("busybox", (), ("wget", "-qO-", "web"), ("wget", "-qO-", "web")),
        ("busybox", ("sh", "-c"), ("id",), ("sh", "-c", "id")),
        ("curl", (), ("-s", "web"), ("curl", "-s", "web")),
        ("curl", (), ("http://web",), ("curl", "http://web")),
        ("curl", (), ("curl", "web"), ("curl", "web")),
        ("curl", ("sh",), ("-x",), ("sh", "-x")),
        ("nginx", (), ("sh",), ()),
        ("", ("sh",), (), ()),
    ],
)
def test_what_a_clients_shell_runs(kind: str, command: tuple[str, ...], arguments: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert personalities.shell_command(kind, command, arguments) == expected


def test_a_container_that_is_down_listens_nowhere() -> None:
    pod = Pod(
        metadata=ObjectMeta(name="p", namespace="d", uid="u"),
        spec=PodSpec(containers=tuple(Container(name=n, image="nginx") for n in "ab")),
    )
    assert desired.standin_ports(pod, [], {"a"}) == (Port("TCP", 80, "b"),)
    assert desired.standin_ports(pod, [], {"a", "b"}) == ()


@pytest.mark.parametrize(
    ("policy", "container", "told", "expected"),
    [
        ("Never", Container(image="perl", command=("perl", "-e", "1")), {}, (0, 0.0)),
        ("OnFailure", Container(image="perl"), {"exit-code": "3"}, (3, 0.0)),
        ("Never", Container(image="busybox", command=("sleep", "5")), {}, (0, 5.0)),
        ("Never", Container(image="busybox", command=("sh", "-c", "sleep 1m")), {"exit-code": "1"}, (1, 60.0)),
        ("Never", Container(image="busybox", command=("sleep", "infinity")), {}, None),
        ("Never", Container(image="busybox", tty=True), {}, None),
        ("Never", Container(image="nginx"), {}, None),
        ("Never", Container(image=AGNHOST), {}, None),
        ("Never", Container(image=AGNHOST, args=("dns-suffix",)), {}, (0, 0.0)),
        ("Never", Container(image="x", ports=(ContainerPort(container_port=80),)), {}, None),
        ("Always", Container(image="perl"), {}, None),
        ("Always", Container(image="perl"), {"run-for": "2s", "exit-code.c": "9"}, (9, 2.0)),
    ],
)
def test_when_a_stand_in_has_done(policy: str, container: Container, told: dict[str, str], expected: object) -> None:
    import msgspec

    container = msgspec.structs.replace(container, name="c")
    pod = Pod(metadata=ObjectMeta(name="p", uid="u"), spec=PodSpec(containers=(container,), restart_policy=policy))
    assert desired.ending(pod, container, Directions.of(told)) == expected


def test_init_containers_have_done_at_once_and_sidecars_never() -> None:
    first, side = Container(name="first", image="nginx"), Container(name="side", image="x", restart_policy="Always")
    pod = Pod(metadata=ObjectMeta(name="p", uid="u"), spec=PodSpec(init_containers=(first, side), restart_policy="Never"))
    assert desired.ending(pod, first, Directions.of({"exit-code.first": "1"})) == (1, 0.0)
    assert desired.ending(pod, side, Directions()) is None


def test_a_role_says_what_its_players_need() -> None:
    containers = (
        Container(name="a", image="hello-app:2.0"),
        Container(name="b", image="x"),
        Container(name="m", image="podwire.dev/machine"),
    )
    pod = Pod(metadata=ObjectMeta(name="p", namespace="d", uid="u"), spec=PodSpec(containers=containers))
    role = desired.role(pod, NodeFacts(name="n", cluster_dns=("10.8.0.10",)), "10.4.0.5", {"status": "503"}, {"a": 2})
    assert [(one.container, one.kind, one.tag, one.run) for one in role.characters] == [("a", "hello-app", "2.0", 2)]
    assert (role.hostname, role.told, role.resolv_conf) == ("p", {"status": "503"}, "")
    caller = Pod(metadata=ObjectMeta(name="p", namespace="d", uid="u"), spec=PodSpec(containers=(Container(name="a", image=AGNHOST),)))
    role = desired.role(caller, NodeFacts(name="n", cluster_dns=("10.8.0.10",)), "10.4.0.5")
    assert "nameserver 10.8.0.10" in role.resolv_conf
    assert "10.4.0.5\tp" in role.hosts
