"""A file of checks: what is read, and what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.cluster.checks import BadChecks, Check, Connection, End, expectation, holds, read, words

POD = {"k8sResource": {"kind": "Pod", "name": "client", "namespace": "shop"}}
WEB = {"k8sResource": {"kind": "deployment", "name": "web"}}


def check(**fields: Any) -> dict[str, Any]:
    tree = {"name": "a", "src": POD, "dst": WEB, "targetPort": 80, **fields}
    return {key: value for key, value in tree.items() if value is not None}


def only(**fields: Any) -> Check:
    [found] = read([("f.yaml:1", check(**fields))])
    return found


def test_what_a_check_says() -> None:
    assert only() == Check("a", End("client", "pod", "shop"), End("web", "deployment", "default"), 80)
    told = only(
        type="k8s", protocol="UDP", timeoutSeconds=2, attempts=1, exitCode=1, src={"place": "internet"}, dst={"host": {"name": "x.y"}}
    )
    assert told == Check("a", End("internet"), End("x.y"), 80, "udp", 2.0, 1, "")
    assert only(expect="No answer", exitCode=1).expected == "no answer"
    assert only(dst={"k8sResource": {"kind": "service", "name": "web", "clone": False}}).target == End("web", "service", "default")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": None}, "name: expected a text, got None"),
        ({"protocol": "sctp"}, "protocol: expected one of tcp, udp, got 'sctp'"),
        ({"targetPort": 0}, "targetPort: expected a number from 1 to 65535, got 0"),
        ({"targetPort": "80"}, "targetPort: expected a number from 1 to 65535, got '80'"),
        ({"attempts": True}, "attempts: expected a number from 1 to 100, got True"),
        ({"exitCode": 2}, "exitCode: expected a number from 0 to 1, got 2"),
        ({"expect": "maybe"}, "expect: expected one of connected, refused, no answer, unreachable, unknown name, got 'maybe'"),
        ({"src": {"k8sResource": {"kind": "service", "name": "x"}}}, "src.k8sResource.kind: expected one of pod, deployment, "),
        ({"src": None}, "src: expected a mapping, got None"),
        ({"dst": {"host": "x"}}, "dst.host: expected a mapping, got 'x'"),
        ({"dst": {"where": "x"}}, "dst.where: unknown field; there are host, k8sResource"),
        ({"ports": [80]}, "ports: unknown field; there are attempts, dst, "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(BadChecks) as refused:
        only(**fields)
    assert str(refused.value).startswith(f"f.yaml:1: {text}")
    assert refused.value.status == 2


def test_names_are_their_own() -> None:
    with pytest.raises(BadChecks, match="f:9: name: 'a' is the name of the check at f:1"):
        read([("f:1", check()), ("f:9", check())])
    with pytest.raises(BadChecks, match="f:1: a check: expected a mapping, got 'x'"):
        read([("f:1", "x")])


def test_what_holds() -> None:
    assert [holds(only(), outcome) for outcome in ("connected", "refused")] == [True, False]
    assert [holds(only(exitCode=1), outcome) for outcome in ("connected", "refused", "no answer")] == [False, True, True]
    assert [holds(only(expect="refused"), outcome) for outcome in ("connected", "refused", "no answer")] == [False, True, False]
    assert [expectation(only(**one)) for one in ({}, {"exitCode": 1})] == ["expected: connected", "expected: not connected"]
    one = Connection("pod/shop/client", "10.4.0.3", "shop/client -> default/web-1")
    assert words(only(), one, "refused") == "shop/client -> default/web-1 10.4.0.3:80 (tcp): refused"
