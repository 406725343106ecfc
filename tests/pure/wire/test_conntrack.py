"""Flows as bytes: what is encoded decodes to the same, and nothing but a typed error comes of other bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.wire import conntrack, netlink
from podwire.wire.conntrack import CTA, Flow, Tuple
from podwire.wire.netlink import be16, be32

PORT = st.integers(0, 65535)


@st.composite
def tuples(draw: st.DrawFn) -> Tuple:
    length = draw(st.sampled_from([4, 16]))
    address = st.binary(min_size=length, max_size=length)
    return Tuple(draw(address), draw(address), conntrack.UDP, draw(PORT), draw(PORT))


@given(tuples(), tuples(), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 65535))
def test_an_entry_decodes(original: Tuple, reply: Tuple, mark: int, number: int, zone: int) -> None:
    payload = b"\2\0\0\0" + conntrack._tuple(CTA.TUPLE_ORIG, original) + conntrack._tuple(CTA.TUPLE_REPLY, reply)
    payload += be32(CTA.MARK, mark) + be32(CTA.ID, number) + be16(CTA.ZONE, zone) + be32(CTA.STATUS, conntrack.Status.DST_NAT)
    found = conntrack.flow(payload)
    assert found == Flow(original, reply, mark, conntrack.Status.DST_NAT, 0, number, zone)
    assert found.translated
    [order] = netlink.messages(conntrack.delete(5, found, acknowledge=True))
    sent = netlink.attributes(order.payload, 4)
    assert (order.sequence, order.flags, sent[CTA.ID]) == (5, netlink.REQUEST | netlink.ACK, number.to_bytes(4, "big"))
    assert conntrack._read_tuple(sent[CTA.TUPLE_ORIG]) == original
    assert (CTA.ZONE in sent) == bool(zone)


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_by_one_type(payload: bytes) -> None:
    with pytest.raises(netlink.MalformedNetlink):
        conntrack.flow(b"\2\0\0\0" + payload)


def test_a_flow_prints() -> None:
    one = Flow(Tuple(bytes([10, 4, 0, 2]), bytes([10, 8, 0, 10]), 17, 4000, 53), Tuple(b"\0" * 15 + b"\1", b"\0" * 15 + b"\2", 6, 1, 2), 7)
    assert str(one) == "udp 10.4.0.2:4000 > 10.8.0.10:53, replies tcp [::1]:1 > [::2]:2, mark 0x7"
