"""Entries of a container's log: what a program wrote comes back whole, whatever pieces it came in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podwire.pods.logs.lines import LONGEST, Entry, Splitter, decode, encode


@given(
    st.integers(0, 4_000_000_000 * 10**9),
    st.sampled_from(["stdout", "stderr"]),
    st.booleans(),
    st.binary().map(lambda b: b.replace(b"\n", b"")),
)
def test_an_entry_comes_back(time_ns: int, stream: str, whole: bool, text: bytes) -> None:
    entry = Entry(time_ns, stream, whole, text)
    assert decode(encode(entry)) == entry


def test_the_form_is_that_of_container_runtimes() -> None:
    entry = Entry(1_475_712_077_669_794_202, "stdout", True, b"log content 1")
    assert encode(entry) == b"2016-10-06T00:01:17.669794202Z stdout F log content 1\n"
    assert decode(b"2016-10-06T00:17:09.6Z stderr P x y \n") == Entry(1_475_713_029_600_000_000, "stderr", False, b"x y ")
    assert decode(b"2016-10-06T00:17:09Z stderr F\n") == Entry(1_475_713_029_000_000_000, "stderr", True, b"")
    assert decode(b"no entry") is None


@given(st.lists(st.one_of(st.binary(max_size=40), st.just(b"x" * (LONGEST + 7)), st.just(b"\n"))))
def test_a_stream_comes_back_from_its_entries(pieces: list[bytes]) -> None:
    splitter = Splitter("stdout")
    written = b"".join(splitter.feed(piece, 1) for piece in pieces) + splitter.flush(1)
    entries = [decode(line + b"\n") for line in written.split(b"\n")[:-1]]
    assert all(entry is not None and len(entry.text) <= LONGEST for entry in entries)
    assert b"".join(entry.text + b"\n" * entry.whole for entry in entries if entry) == b"".join(pieces)
