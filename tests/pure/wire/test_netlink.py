"""Netlink framing: what is packed is read back; what is broken is refused; acknowledgements tell all they carry."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink import nlmsg

from podwire.wire import netlink

VALUES = st.lists(st.tuples(st.integers(0, netlink.TYPE_MASK), st.binary(max_size=70)), max_size=12)


@given(VALUES)
def test_attributes_are_read_back_in_order(values: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in values)
    assert len(data) % 4 == 0
    assert netlink.attribute_list(data) == values
    assert netlink.attributes(b"head" + data, 4) == dict(values)


@given(st.lists(st.tuples(st.integers(16, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), VALUES), max_size=6))
def test_messages_of_one_datagram_are_read_back(sent: list[tuple[int, int, int, list[tuple[int, bytes]]]]) -> None:
    payloads = [b"".join(netlink.attribute(kind, value) for kind, value in values) for *_, values in sent]
    datagram = b"".join(
        netlink.message(kind, flags, sequence, payload) for (kind, flags, sequence, _), payload in zip(sent, payloads, strict=True)
    )
    found = list(netlink.messages(datagram))
    assert [(m.type, m.flags, m.sequence) for m in found] == [one[:3] for one in sent]
    assert [m.payload for m in found] == payloads


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (netlink.messages, netlink.attribute_list):
        with contextlib.suppress(netlink.MalformedNetlink):
            list(read(data))


def test_integers_and_strings() -> None:
    data = b"".join(
        (
            netlink.u8(1, 0xAB),
            netlink.u16(2, 0xABCD),
            netlink.u32(3, 0xABCDEF01),
            netlink.u64(4, 0xABCDEF0123456789),
            netlink.i32(5, -2),
            netlink.be16(6, 80),
            netlink.be32(7, 0x01020304),
            netlink.be64(8, 5),
            netlink.string(9, "eth0"),
            netlink.nested(10, netlink.u8(1, 1), netlink.flag(2)),
        )
    )
    found = netlink.attributes(data)
    assert [netlink.to_int(found[kind]) for kind in (1, 2, 3, 4)] == [0xAB, 0xABCD, 0xABCDEF01, 0xABCDEF0123456789]
    assert struct.unpack("=i", found[5]) == (-2,)
    assert [netlink.to_be(found[kind]) for kind in (6, 7, 8)] == [80, 0x01020304, 5]
    assert netlink.to_string(found[9]) == "eth0"
    assert found[9] == b"eth0\0"
    assert netlink.attributes(found[10]) == {1: b"\1", 2: b""}
    assert netlink.NESTED | 10 in struct.unpack_from("=HH", data, len(data) - 16)


def test_the_header_is_what_another_implementation_reads() -> None:
    read = nlmsg(netlink.message(20, netlink.REQUEST | netlink.ACK, 77, netlink.u32(1, 5), port=9))
    read.decode()
    header = read["header"]
    assert (header["length"], header["type"], header["flags"], header["sequence_number"], header["pid"]) == (24, 20, 5, 77, 9)


def _refusal(number: int, *, capped: bool, hints: bytes) -> netlink.Message:
    request = netlink.message(20, netlink.REQUEST, 5, netlink.u32(1, 1))
    repeated = request[:16] if capped else request
    flags = (netlink.CAPPED if capped else 0) | (netlink.ACK_TLVS if hints else 0)
    data = netlink.message(netlink.ERROR, flags, 5, struct.pack("=i", -number) + repeated + hints)
    return next(netlink.messages(data))


@pytest.mark.parametrize("capped", [True, False])
def test_an_extended_acknowledgement(capped: bool) -> None:
    hints = netlink.string(1, "Nexthop has invalid gateway") + netlink.u32(2, 36)
    told = netlink.acknowledgement(_refusal(101, capped=capped, hints=hints))
    assert told == netlink.Acknowledgement(5, 101, "Nexthop has invalid gateway", 36)


def test_a_plain_acknowledgement() -> None:
    assert netlink.acknowledgement(_refusal(0, capped=True, hints=b"")) == netlink.Acknowledgement(5, 0)


def test_the_end_of_a_dump_may_carry_an_error() -> None:
    done = next(netlink.messages(netlink.message(netlink.DONE, netlink.MULTI, 3, struct.pack("=i", -4))))
    assert netlink.acknowledgement(done) == netlink.Acknowledgement(3, 4)
    empty = next(netlink.messages(netlink.message(netlink.DONE, netlink.MULTI, 3, b"")))
    assert netlink.acknowledgement(empty).errno == 0


def test_a_cut_acknowledgement_is_refused() -> None:
    with pytest.raises(netlink.MalformedNetlink):
        netlink.acknowledgement(netlink.Message(netlink.ERROR, 0, 1, 0, b"\0"))


def test_the_end_of_a_dump_is_the_last_of_its_messages() -> None:
    piece, done = netlink.message(0x0A0C, netlink.REQUEST, 7, b"1234"), netlink.message(netlink.DONE, 0, 7, b"\0\0\0\0")
    refused = netlink.message(netlink.ERROR, 0, 7, b"\xff\xff\xff\xff")
    assert [netlink.is_end(one) for one in (b"", piece, piece + piece, done, piece + done, refused)] == [False] * 3 + [True] * 3
    assert not netlink.is_end(b"\0" * 64)
