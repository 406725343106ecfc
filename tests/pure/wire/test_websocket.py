"""WebSocket: what one side makes the other one reads, in whatever pieces it arrives, and what breaks the protocol is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.wire import websocket

MASK = b"\x37\xfa\x21\x3d"


def test_the_examples_of_the_standard() -> None:
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert websocket.frame(b"Hello", websocket.TEXT) == bytes.fromhex("810548656c6c6f")
    assert websocket.frame(b"Hello", websocket.TEXT, mask=MASK) == bytes.fromhex("818537fa213d7f9f4d5158")
    assert websocket.head(256) == bytes.fromhex("827e0100")
    assert websocket.head(65536) == bytes.fromhex("827f0000000000010000")
    pieces = list(websocket.Session(server=False).receive(bytes.fromhex("010348656c80026c6f")))
    assert pieces == [websocket.Piece(b"Hel", True, False, True), websocket.Piece(b"lo", False, True, True)]


@given(st.binary(), st.binary(min_size=4, max_size=4))
def test_masking_twice_is_nothing(payload: bytes, mask: bytes) -> None:
    assert websocket.xor(websocket.xor(payload, mask), mask) == payload
    assert websocket.xor(payload, mask) == bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


@given(
    st.lists(st.tuples(st.lists(st.one_of(st.binary(max_size=50), st.just(b"x" * 70_000)), min_size=1, max_size=3), st.booleans())),
    st.booleans(),
    st.integers(1, 200),
)
def test_what_is_sent_arrives(messages: list[tuple[list[bytes], bool]], server: bool, size: int) -> None:
    mask, data = MASK if server else b"", b""
    for frames, text in messages:
        for place, payload in enumerate(frames):
            opcode = (websocket.TEXT if text else websocket.BINARY) if place == 0 else websocket.CONTINUATION
            data += websocket.frame(payload, opcode, mask=mask, last=place == len(frames) - 1)
            data += websocket.frame(b"?", websocket.PING, mask=mask)  # control frames come between
    session, arrived, pings = websocket.Session(server=server), list[tuple[bytes, bool]](), 0
    step = max(size, len(data) // 500)
    for start in range(0, len(data), step):
        for event in session.receive(data[start : start + step]):
            if isinstance(event, websocket.Ping):
                pings += 1
                continue
            assert isinstance(event, websocket.Piece)
            if event.first:
                arrived.append((b"", event.text))
            arrived[-1] = (arrived[-1][0] + event.payload, event.text)
    assert arrived == [(b"".join(frames), text) for frames, text in messages]
    assert pings == sum(len(frames) for frames, _ in messages)


def test_control_frames_have_answers() -> None:
    session = websocket.Session(server=True)
    ping, closed = session.receive(websocket.frame(b"hi", websocket.PING, mask=MASK) + websocket.close(1001, "bye", mask=MASK))
    assert ping == websocket.Ping(websocket.frame(b"hi", websocket.PONG))
    assert closed == websocket.Closed(1001, websocket.close(1001))


@pytest.mark.parametrize(
    "data",
    [
        websocket.frame(b"x"),  # a client's without a mask
        bytes.fromhex("c28037fa213d"),  # an extension's bit
        bytes.fromhex("838037fa213d"),  # an opcode that there is not
        bytes.fromhex("098037fa213d"),  # a ping in pieces
        bytes.fromhex("89fe007e37fa213d"),  # a long ping
        bytes.fromhex("808037fa213d"),  # goes on with nothing
        bytes.fromhex("028037fa213d") * 2,  # begins within a message
    ],
)
def test_what_breaks_the_protocol_is_refused(data: bytes) -> None:
    with pytest.raises(websocket.ProtocolError):
        list(websocket.Session(server=True).receive(data))


@given(st.binary(max_size=200))
def test_whatever_arrives_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(websocket.ProtocolError):
        list(websocket.Session(server=True).receive(data))
