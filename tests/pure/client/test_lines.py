from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from podwire.client.lines import Lines


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n"), min_size=1).filter(str.strip), max_size=5),
    st.lists(st.integers(0, 60), max_size=8),
)
def test_lines_are_the_same_however_the_stream_is_cut(texts: list[str], cuts: list[int]) -> None:
    whole = b"".join(text.encode() + b"\n" for text in texts)
    lines = Lines()
    found: list[bytes] = []
    start = 0
    for end in [*sorted(cuts), len(whole)]:
        found += lines.feed(whole[start:end])
        start = max(start, end)
    assert found == [text.encode() for text in texts if text.encode().strip()]


def test_blank_lines_and_an_unfinished_one_are_left_out() -> None:
    lines = Lines()
    assert lines.feed(b"\n\r\na\n\nb") == [b"a"]
    assert lines.feed(b"c\n") == [b"bc"]
