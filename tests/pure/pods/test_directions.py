"""What annotations tell stand-ins to do: which are obeyed, what is said about the others, and what they come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.pods.standins.directions import NAMES, PREFIX, Directions, accepted
from podwire.pods.standins.durations import parse_duration


def told(**annotations: str) -> dict[str, str]:
    return {PREFIX + name.replace("__", ".").replace("_", "-"): value for name, value in annotations.items()}


def directions(**annotations: str) -> Directions:
    found, faults = accepted(told(**annotations), ["web", "side"], {})
    assert faults == []
    return Directions.of(found)


def test_nothing_told_changes_nothing() -> None:
    found, faults = accepted({"app": "web", "example.com/status": "503"}, ["web"], {"status": "404"})
    assert (found, faults) == ({}, [])
    assert Directions.of({}).manner("web", 80, "/").status is None


def test_the_nearest_wins() -> None:
    one = directions(status="500\n/api 501\n/api/* 502\n/api/v1/* 503", status__8080="201", status__side="404, /health 200")
    assert [one.manner("web", 80, path).status for path in ("/", "/api", "/api/", "/api/v1/x")] == [500, 501, 502, 503]
    assert one.manner("web", 8080, "/api").status == 201
    assert [one.manner("side", 80, path).status for path in ("/", "/health")] == [404, 200]


def test_a_path_that_only_the_pod_knows_is_the_pods() -> None:
    one = directions(delay="/slow 2s", delay__web="/fast 1ms")
    assert [one.manner("web", 80, path).delay_s for path in ("/slow", "/fast", "/")] == [2.0, 0.001, 0.0]


def test_every_manner() -> None:
    one = directions(hang="/stuck", body="nothing\nhere\n", headers="X-Stage: canary\nCache-Control: no-store", delay="150ms")
    manner = one.manner("web", 80, "/stuck")
    assert (manner.hang, manner.body, manner.delay_s) == (True, b"nothing\nhere\n", 0.15)
    assert manner.headers == (("X-Stage", "canary"), ("Cache-Control", "no-store"))
    assert not one.manner("web", 80, "/").hang


def test_ports() -> None:
    one = directions(refuse="8080, 8081", drop="true", reset="9090")
    assert [one.at("refuse", port) for port in (8080, 8081, 8082)] == [True, True, False]
    assert one.at("drop", 1)
    assert not one.at("reset", 1)
    assert not one.at("off", 1)


def test_probes_and_ends() -> None:
    one = directions(fail_readiness="true", fail_liveness__side="true", exit_code="3", run_for__side="1m30s")
    assert [one.fails("readiness", "web"), one.fails("liveness", "web"), one.fails("liveness", "side")] == [True, False, True]
    assert (one.exit_code("web"), one.run_for("web"), one.run_for("side")) == (3, None, 90.0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("status", "999", "an HTTP status from 200 to 599, or lines of a path and a status such as /api 503"),
        ("status", "", "an HTTP status from 200 to 599, or lines of a path and a status such as /api 503"),
        ("status", "200 503", "one value, or one a line for each path such as /api VALUE"),
        ("delay", "soon", "a duration up to 1h such as 200ms or 1.5s"),
        ("delay", "2h", "a duration up to 1h such as 200ms or 1.5s"),
        ("hang", "yes", "true or false"),
        ("headers", "X-Stage", "lines such as X-Stage: canary"),
        ("headers", "Content-Length: 3", "header fields other than Content-Length, which the answer's framing needs"),
        ("refuse", "http", "port numbers such as 8080 or 8080 9090, or true for all"),
        ("drop", "70000", "port numbers such as 8080 or 8080 9090, or true for all"),
        ("exit-code", "256", "an exit status from 0 to 255"),
        ("fail-readiness.other", "true", f"the name of a container of the Pod behind {PREFIX}fail-readiness."),
        ("status.0", "200", f"the name of a container of the Pod or a port number behind {PREFIX}status."),
        ("refuse.web", "80", f"{PREFIX}refuse without .web"),
        ("statsu", "200", f"one of {', '.join(PREFIX + known for known in NAMES)}"),
    ],
)
def test_a_wrong_one_is_named_and_what_held_before_holds(name: str, value: str, expected: str) -> None:
    found, faults = accepted({PREFIX + name: value, PREFIX + "body": "x"}, ["web"], {name: "former", "delay.1": "1s"})
    assert found == {name: "former", "body": "x"}
    assert str(faults[0]) == f'annotation {PREFIX}{name}: "{value}": expected {expected}; what held before still holds'
    assert accepted({PREFIX + name: value}, ["web"], {})[0] == {}


@given(st.dictionaries(st.sampled_from([PREFIX + name for name in NAMES]), st.text(max_size=30)))
def test_what_is_accepted_can_be_obeyed(annotations: dict[str, str]) -> None:
    found, faults = accepted(annotations, ["web"], {})
    assert len(found) + len(faults) == len(annotations)
    one = Directions.of(found)
    one.manner("web", 80, "/")
    one.exit_code("web")
    one.run_for("web")
    one.at("drop", 80)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("1s", 1.0), ("1.5s", 1.5), ("1m30s", 90.0), (".5h", 1800.0), ("200ms", 0.2), ("5us", 5e-6)]
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "-1s", "1s ", "1d", "1,5s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)
