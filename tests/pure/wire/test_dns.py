"""DNS messages on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.wire import dns

LABELS = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
NAMES = LABELS.map(dns.from_labels)
NUMBERS = st.integers(0, 0xFFFF)


def records() -> st.SearchStrategy[dns.Record]:
    plain = st.builds(dns.Record, NAMES, st.sampled_from([dns.A, dns.AAAA, dns.TXT, 999]), st.integers(0, 2**31), st.binary(max_size=40))
    named = st.builds(dns.Record, NAMES, st.sampled_from([dns.CNAME, dns.NS, dns.PTR]), st.integers(0, 2**31), NAMES)
    srv = st.builds(dns.Record, NAMES, st.just(dns.SRV), st.just(30), st.builds(dns.srv, NUMBERS, NUMBERS, NUMBERS, NAMES))
    numbers = st.integers(0, 2**32 - 1)
    soa = st.builds(dns.Record, NAMES, st.just(dns.SOA), st.just(30), st.builds(dns.soa, NAMES, NAMES, *[numbers] * 5))
    return st.one_of(plain, named, srv, soa)


MESSAGES = st.builds(
    dns.Message,
    NUMBERS,
    st.sampled_from([0, dns.RD, dns.QR | dns.AA, dns.QR | dns.TC | dns.RD]),
    st.integers(0, 15),
    st.lists(st.builds(dns.Question, NAMES, NUMBERS, NUMBERS), max_size=2).map(tuple),
    st.lists(records(), max_size=3).map(tuple),
    st.lists(records(), max_size=2).map(tuple),
    st.lists(records(), max_size=2).map(tuple),
    st.one_of(st.none(), NUMBERS),
)


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message: dns.Message) -> None:
    assert dns.decode(message.encode()) == message


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        dns.decode(data)
    except dns.Malformed:
        return


@given(MESSAGES, st.data())
def test_a_message_cut_short_is_refused(message: dns.Message, data: st.DataObject) -> None:
    whole = message.encode()
    with pytest.raises(dns.Malformed):
        dns.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(LABELS)
def test_text_and_wire_are_two_forms_of_one_name(labels: list[bytes]) -> None:
    wire = dns.from_labels(labels)
    assert dns.name(dns.text(wire)) == wire
    assert dns.labels(wire) == labels


def test_names_that_are_none() -> None:
    for bad in ("a..b", ".a", "x" * 64, ".".join(["a" * 60] * 5), "a\\"):
        with pytest.raises(dns.Malformed):
            dns.name(bad)
    assert dns.name(".") == dns.name("") == b"\0"
    assert dns.text(dns.name("a\\.b.c\\032")) == "a\\.b.c\\032."


def test_names_above_a_name() -> None:
    assert [dns.text(each) for each in dns.parents(dns.name("a.b.c"))] == ["b.c.", "c."]
    assert dns.parents(b"\0") == []


def test_compressed_names_are_followed_and_pointers_must_lead_back() -> None:
    head = dns.HEADER.pack(1, dns.QR, 1, 1, 0, 0)
    question = dns.name("a.example") + b"\0\1\0\1"
    record = dns.QUESTION_NAME + bytes((0, 5, 0, 1, 0, 0, 0, 9, 0, 4)) + b"\1b\xc0\x0e"
    [answer] = dns.decode(head + question + record).answers
    assert (dns.text(answer.name), dns.text(answer.data)) == ("a.example.", "b.example.")
    for target in (b"\xc0\x0c", b"\xc0\x20"):
        with pytest.raises(dns.Malformed):
            dns.decode(dns.HEADER.pack(1, 0, 1, 0, 0, 0) + target + b"\0\1\0\1")


@given(NAMES, st.binary(max_size=3))
def test_cuts_are_where_labels_begin_and_refuse_what_is_no_name(name: bytes, more: bytes) -> None:
    assert [name[cut:] for cut in dns.cuts(name)[1:-1]] == dns.parents(name)
    if more:
        with pytest.raises(dns.Malformed):
            dns.cuts(name + more)
    with pytest.raises(dns.Malformed):
        dns.cuts(name[:-1])
