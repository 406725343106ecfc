"""Trees written as YAML: what is read again is what was written, and it looks as people know it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from podwire.apiserver.yaml_text import written

Tree = dict[str, Any]
_WORDS = ["yes", "No", "~", "null", "1e3", "0x1f", "0o7", "010", "1_000", ".inf", ".5", "+1", "12:30:45", "2026-01-01", "a:"]
_WORDS += ["=", "<<", "#", "&a", "*a", "!a", "%a", "@a", "`a", "|", ">", "?", "---", "..."]
_LINES = ["- a", "a: b", "a #b", " a", "a ", "a\n", "\na", "a\n\n", "a\n b\n", "a\r\n", "a\tb\nc"]
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | st.sampled_from(_WORDS + _LINES)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
TREES = st.recursive(SCALARS, lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=4), max_leaves=20)


@given(TREES)
@example({"a" * 2000: {"b": [1]}, "c\nd" * 200: "e"})
@example([[[]], [{}], [[1, [2]], {"a": [{"b": []}]}]])
@example(1e23)
@example({"a": "k: v\n\n  indented\nlast"})
def test_what_is_written_is_read_again(tree: Any) -> None:
    text = written(tree)
    for loader in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        assert yaml.load(text, Loader=loader) == tree


@pytest.mark.parametrize("word", ["1e3", "1e+3", "0o17", "0x1F", "NaN", "true", "True", "-", "", "1.2.3.4e5", "0.0"])
def test_what_another_reader_would_take_for_something_else_is_quoted(word: str) -> None:
    assert written([word]) == b'- "%s"\n' % word.encode()


def test_it_looks_as_people_know_it() -> None:
    tree = {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "a", "labels": {}, "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"x/y": "true", "z": "a b"}},
        "data": {"file": "one\n\n  two\n", "ip": "10.4.0.0/14", "list": "a, b", "url": "https://a/b"},
        "items": [{"a": 1, "b": [None, "c"]}, [], [[1]]],
    }
    assert (
        written(tree).decode()
        == """\
apiVersion: v1
data:
  file: |
    one

      two
  ip: 10.4.0.0/14
  list: "a, b"
  url: https://a/b
items:
- a: 1
  b:
  - null
  - c
- []
- - - 1
kind: ConfigMap
metadata:
  annotations:
    x/y: "true"
    z: a b
  creationTimestamp: "2026-01-01T00:00:00Z"
  labels: {}
  name: a
"""
    )
