"""The two messages of gRPC health, coded by hand."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.probes.grpc_health import decode_request, decode_response, encode_request, encode_response, frame, unframe


@given(st.text(max_size=300))
def test_a_request_comes_back(service: str) -> None:
    assert decode_request(unframe(frame(encode_request(service)))) == service


@given(st.integers(0, 2**31))
def test_a_response_comes_back(status: int) -> None:
    assert decode_response(encode_response(status)) == status


def test_the_bytes_are_those_of_the_protocol() -> None:
    assert encode_request("a") == b"\x0a\x01a"
    assert frame(encode_response(1)) == b"\0\0\0\0\x02\x08\x01"
    assert encode_request("") == encode_response(0) == b""


def test_unknown_fields_are_passed_over() -> None:
    assert decode_response(b"\x12\x01x\x19" + bytes(8) + b"\x25" + bytes(4) + b"\x08\x02") == 2


@given(st.binary(max_size=40))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    for decode in (decode_request, decode_response, unframe):
        with contextlib.suppress(ValueError):
            decode(data)


@pytest.mark.parametrize("body", [b"", b"\x01\0\0\0\0", b"\0\0\0\0\x05ab"])
def test_what_is_not_one_whole_message_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="message"):
        unframe(body)
