"""One endpoint more or less: what is told without writing the others is what differs when all are written."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.services import layout, plain, resize
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.elements import forms
from podwire.services.numbers import Numbers
from podwire.views.backends import Backend, in_columns

FORMS = forms(layout.IPV4)
PODS = st.one_of(st.just(""), st.text(st.characters(codec="utf-8", categories=["L"]), max_size=80).map("shop/".__add__))
BACKENDS = st.lists(
    st.builds(Backend, st.integers(0, 300).map(lambda n: f"10.4.{n >> 8}.{n & 255}"), st.just(8080), st.just("node-2"), PODS),
    min_size=1,
    max_size=300,
    unique_by=lambda one: one.address,
)


def program(backends: list[Backend], port: int = 80, name: str = "http") -> ServiceProgram:
    columns = in_columns(tuple(backends), 4)
    return ServiceProgram("shop/s", ("10.8.0.1",), (), (), (PortProgram(name, "TCP", port, 0, columns, None, None),), plain=True)


def rows(service: ServiceProgram, numbers: Numbers) -> dict[tuple[str, bytes], bytes]:
    found = plain.elements(service, "node-1", FORMS, numbers)
    return {(field, FORMS[field].key(row)): row for field, its in found.items() for row in its}


@given(BACKENDS, st.data())
def test_what_is_told_is_what_differs(backends: list[Backend], data: st.DataObject) -> None:
    numbers = Numbers()
    now, held = backends, rows(program(backends), numbers)
    for _ in range(data.draw(st.integers(1, 5))):
        other = Backend(f"10.5.0.{data.draw(st.integers(0, 20))}", 8080, "node-2", data.draw(PODS))
        gone = data.draw(st.integers(0, len(now) - 1))
        grows = len(now) < 2 or data.draw(st.booleans())
        after = [*now, other] if grows else [*now[:gone], *now[gone + 1 :]]
        if len({one.address for one in after}) < len(after):
            continue
        whole = copy.deepcopy(numbers)
        wanted = rows(program(after), whole)
        told = resize.notes(program(now), program(after), "node-1", numbers, FORMS)
        assert told is not None
        assert {(field, key): (before, row) for field, key, before, row in told} == {
            at: (held.get(at), wanted.get(at)) for at in held.keys() | wanted.keys() if held.get(at) != wanted.get(at)
        }
        assert numbers.seated("shop/s:http/TCP") == whole.seated("shop/s:http/TCP")
        now, held = after, wanted


A, B, C = (Backend(f"10.4.1.{number}", 8080, "node-2", f"shop/{number}") for number in range(3))
HERE = Backend("10.4.1.9", 8080, "node-1", "shop/9")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (program([A, B]), program([A, B])),
        (program([A, B]), program([A, C])),
        (program([A]), program([A, B, C])),
        (program([A, B]), program([A, B, HERE])),
        (program([A, B, HERE]), program([A, B])),
        (program([A, B]), program([A, B, Backend("10.4.1.7", 8080)])),
        (program([A, B]), program([A, Backend(B.address, 8080, "node-2", "shop/other"), C])),
        (program([A, B]), program([A, B, C], port=81)),
        (program([A, B]), program([A, B, C], name="other")),
        (program([A]), program([Backend(one.address, 8081, one.node, one.pod) for one in (A, B)])),
        (program([A, B]), program([A, B, Backend("no address", 8080, "node-2")])),
        (program([A, B]), program([A, B, Backend("10.4.1.999", 8080, "node-2")])),
    ],
    ids=range(12),
)
def test_another_change_is_left_to_others_and_nothing_is_done(old: ServiceProgram, new: ServiceProgram) -> None:
    numbers = Numbers()
    rows(old, numbers)
    before = copy.deepcopy(vars(numbers))
    assert resize.notes(old, new, "node-1", numbers, FORMS) is None
    assert vars(numbers) == before


def test_who_is_not_known_to_sit_anywhere_is_left_to_others() -> None:
    assert resize.notes(program([A]), program([A, B]), "node-1", Numbers(), FORMS) is None
    numbers = Numbers()
    numbers.adopt("shop/s:http/TCP", "cluster", 65_536, None, {})
    assert resize.notes(program([A]), program([A, B]), "node-1", numbers, FORMS) is None
    rows(program([A, C]), numbers := Numbers())
    assert resize.notes(program([A, B]), program([A]), "node-1", numbers, FORMS) is None, "another sits there"
    assert resize.notes(program([A, B]), program([A, B, C]), "node-1", numbers, FORMS) is None, "it sits there"
