"""What a container finds in its environment."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects.core import (
    ConfigMap,
    Container,
    EnvFromSource,
    EnvSourceReference,
    EnvVar,
    EnvVarSource,
    KeySelector,
    ObjectFieldSelector,
    Pod,
    PodSpec,
    ResourceFieldSelector,
    Secret,
    Service,
    ServicePort,
    ServiceSpec,
)
from podwire.objects.meta import ObjectMeta
from podwire.pods.environment import Sources, Unavailable, command, expand, references, service_variables, variables_of

POD = Pod(metadata=ObjectMeta(name="web", namespace="shop", uid="u", labels={"app": "x"}), spec=PodSpec(node_name="n"))
SOURCES = Sources(
    {"map": ConfigMap(data={"a": "1", "not a name": "2"})},
    {"secret": Secret(data={"b": base64.b64encode(b"hidden").decode(), "binary": base64.b64encode(b"\xff").decode()})},
)


def variables(*env: EnvVar, sources: tuple[EnvFromSource, ...] = (), services: tuple[Service, ...] = ()) -> dict[str, str]:
    container = Container(name="c", env=env, env_from=sources)
    return variables_of(POD, container, services, SOURCES, {"status.podIP": "10.4.0.5"}.get)


def from_(**source: object) -> EnvVar:
    return EnvVar(name="X", value_from=EnvVarSource(**source))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)-$(B)", "1-$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
        ("echo $$", "echo $"),
    ],
)
def test_references_are_filled_in(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


@given(st.text())
def test_a_text_without_references_stays(text: str) -> None:
    assert expand(text.replace("$", ""), {"A": "1"}) == text.replace("$", "")


def test_variables_see_those_before_them() -> None:
    found = variables(EnvVar(name="B", value="$(A)"), EnvVar(name="A", value="1"), EnvVar(name="C", value="<$(A)>"))
    assert found == {"B": "$(A)", "A": "1", "C": "<1>"}
    assert command(Container(command=("echo", "$(C)"), args=("$(D)",)), found) == ["echo", "<1>", "$(D)"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u"),
        ("spec.nodeName", "n"),
        ("spec.serviceAccountName", "default"),
        ("status.podIP", "10.4.0.5"),
        ("metadata.labels['app']", "x"),
        ("metadata.annotations['none']", ""),
    ],
)
def test_fields(path: str, value: str) -> None:
    assert variables(from_(field_ref=ObjectFieldSelector(field_path=path))) == {"X": value}


def test_config_maps_and_secrets() -> None:
    bulk = (
        EnvFromSource(prefix="M_", config_map_ref=EnvSourceReference(name="map")),
        EnvFromSource(secret_ref=EnvSourceReference(name="secret")),
        EnvFromSource(secret_ref=EnvSourceReference(name="none", optional=True)),
    )
    assert variables(sources=bulk) == {"M_a": "1", "b": "hidden"}
    assert variables(from_(config_map_key_ref=KeySelector(name="map", key="a"))) == {"X": "1"}
    assert variables(from_(secret_key_ref=KeySelector(name="secret", key="b"))) == {"X": "hidden"}
    assert variables(from_(secret_key_ref=KeySelector(name="secret", key="c", optional=True))) == {}
    container = Container(env=(from_(config_map_key_ref=KeySelector(name="map", key="a")),), env_from=bulk)
    assert references(container) == ({"map"}, {"secret", "none"})


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        (from_(config_map_key_ref=KeySelector(name="none", key="a")), 'configmap "none" not found'),
        (from_(secret_key_ref=KeySelector(name="secret", key="c")), "couldn't find key c in secret shop/secret"),
        (from_(field_ref=ObjectFieldSelector(field_path="spec.what")), r"unsupported fieldPath: spec\.what"),
        (from_(resource_field_ref=ResourceFieldSelector(resource="limits")), "unsupported container resource : limits"),
        (from_(resource_field_ref=ResourceFieldSelector(container_name="b", resource="limits.cpu")), "container b not found"),
    ],
)
def test_what_cannot_be_had_is_said(variable: EnvVar, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        variables(variable)
    with pytest.raises(Unavailable, match='configmap "none" not found'):
        variables(sources=(EnvFromSource(config_map_ref=EnvSourceReference(name="none")),))


def service(name: str, namespace: str, ip: str, *ports: ServicePort) -> Service:
    return Service(metadata=ObjectMeta(name=name, namespace=namespace), spec=ServiceSpec(cluster_ip=ip, ports=ports))


def test_services_are_linked() -> None:
    api = service("kubernetes", "default", "10.8.0.1", ServicePort(name="https", port=443))
    redis = service("redis-cart", "shop", "10.8.0.7", ServicePort(port=6379))
    others = (service("far", "elsewhere", "10.8.0.8", ServicePort(port=1)), service("headless", "shop", "None", ServicePort(port=1)))
    found = service_variables(POD, (api, redis, *others))
    assert found["KUBERNETES_SERVICE_HOST"] == "10.8.0.1"
    assert found["KUBERNETES_SERVICE_PORT"] == found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert found["REDIS_CART_SERVICE_PORT"] == "6379"
    assert found["REDIS_CART_PORT_6379_TCP"] == "tcp://10.8.0.7:6379"
    assert found["REDIS_CART_PORT_6379_TCP_ADDR"] == "10.8.0.7"
    assert not [name for name in found if name.startswith(("FAR", "HEADLESS"))]
    unlinked = Pod(metadata=POD.metadata, spec=PodSpec(enable_service_links=False))
    assert {name.partition("_")[0] for name in service_variables(unlinked, (api, redis))} == {"KUBERNETES"}
