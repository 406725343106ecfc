"""SPDY/3.1: what one side makes the other one reads, in whatever pieces it arrives, and nonsense is refused."""

from __future__ import annotations

import contextlib
import itertools
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.wire import spdy

names = st.text("abcdefghij-", min_size=1, max_size=12)
headers = st.dictionaries(names, st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30), max_size=5)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def joined(events: list[spdy.Event]) -> list[spdy.Event]:
    """The pieces of a frame's payload as one."""
    made: list[spdy.Event] = []
    for event in events:
        last = made[-1] if made else None
        if isinstance(event, spdy.Data) and isinstance(last, spdy.Data) and last.stream == event.stream and not last.fin:
            made[-1] = spdy.Data(event.stream, last.payload + event.payload, event.fin)
        else:
            made.append(event)
    return made


def test_the_dictionary_is_that_of_the_protocol() -> None:
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2  # which every compressed header begins with


def test_a_frame_has_the_form_of_the_protocol() -> None:
    number, frame = spdy.Session(client=True).open({"streamType": "error"})
    assert number == 1
    assert frame[:8] == bytes.fromhex("80030001") + struct.pack(">I", len(frame) - 8)
    assert frame[8:18] == bytes.fromhex("00000001 00000000 0000")
    assert frame[20:24] == struct.pack(">I", 0xE3C6A7C2)
    assert spdy.Session.data(5, b"abc", fin=True) == bytes.fromhex("00000005 01000003") + b"abc"


@given(st.lists(st.one_of(headers, st.binary(max_size=300))), st.lists(st.integers(0, 10_000)), st.booleans())
def test_what_is_sent_arrives(sent: list[dict[str, str] | bytes], places: list[int], client: bool) -> None:
    here, there = spdy.Session(client=client), spdy.Session(client=not client)
    data, expected, number = b"", list[spdy.Event](), 0
    for one in sent:
        if isinstance(one, bytes):
            if number:
                fin = len(one) % 2 == 0
                data += here.data(number, one, fin=fin)
                expected.append(spdy.Data(number, one, fin))
        else:
            number, frame = here.open(one)
            data += frame
            expected.append(spdy.Opened(number, one))
    events = [event for piece in cut(data, places) for event in there.receive(piece)]
    assert joined(events) == joined(expected)


def test_answers_of_a_server() -> None:
    client, server = spdy.Session(client=True), spdy.Session(client=False)
    number, frame = client.open({"port": "80"}, fin=True)
    assert list(server.receive(frame)) == [spdy.Opened(1, {"port": "80"}, True)]
    answers = server.reply(number, {"a": "b"}) + server.reset(number, spdy.REFUSED_STREAM) + server.go_away()
    assert list(client.receive(answers)) == [spdy.Replied(1, {"a": "b"}), spdy.Reset(1, 3), spdy.GoAway(1, 0)]
    (ping,) = server.receive(client.ping(1))
    assert isinstance(ping, spdy.Ping)
    assert list(client.receive(ping.answer)) == [spdy.Ping(1, b"")]


def test_what_is_not_spoken_is_passed_over() -> None:
    server = spdy.Session(client=False)
    window_update = bytes.fromhex("80030009 00000008 00000001 00010000")
    settings = bytes.fromhex("80030004 00000004 00000000")
    _, frame = spdy.Session(client=True).open({})
    assert list(server.receive(window_update + settings + frame)) == [spdy.Opened(1, {})]


def _bomb() -> bytes:
    packed = zlib.compressobj(zdict=spdy.DICTIONARY)
    body = struct.pack(">IIH", 1, 0, 0) + packed.compress(struct.pack(">III", 1, 1, 10**7) + b"a" * 10**7) + packed.flush(zlib.Z_SYNC_FLUSH)
    return bytes.fromhex("80030001") + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    "frame",
    [
        bytes.fromhex("80020001 00000010") + b"\0" * 16,  # SPDY/2
        bytes.fromhex("80030001 00020000"),  # a control frame of 128 KiB
        bytes.fromhex("80030003 00000001 00"),  # too short for what it is
        bytes.fromhex("80030001 0000000c 00000001 00000000 0000 abcd"),  # headers that are not compressed
        spdy.Session(client=False).open({})[1],  # a stream with a server's number
        _bomb(),
    ],
)
def test_nonsense_is_refused(frame: bytes) -> None:
    with pytest.raises(spdy.ProtocolError):
        list(spdy.Session(client=False).receive(frame))


@given(st.binary(max_size=200))
def test_whatever_arrives_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(spdy.ProtocolError):
        list(spdy.Session(client=False).receive(data))
