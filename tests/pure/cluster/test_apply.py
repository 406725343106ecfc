"""The merge patch of ``podwire apply``: what changes, what goes, what stays."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from podwire.cluster import apply

trees = st.recursive(
    st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from("pqrs"), trees, max_size=4)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(before=objects, wanted=objects)
def test_applying_over_what_was_applied_gives_what_is_wanted(before: dict[str, Any], wanted: dict[str, Any]) -> None:
    result = merged(before, apply.merge_patch(before, wanted, before))
    assert apply._holds(result, wanted)
    assert set(result) == set(wanted)
    assert apply.merge_patch(wanted, wanted, result) == {}


def test_fields_of_others_stay_and_defaults_are_no_difference() -> None:
    wanted = {"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}
    live = {"spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"a": "b"}, "clusterIP": "10.8.0.3"}}
    assert apply.merge_patch(wanted, wanted, live) == {}
    changed = {"spec": {"ports": [{"port": 81}]}}
    assert apply.merge_patch(wanted, changed, live) == {"spec": {"ports": [{"port": 81}], "selector": None}}


def test_the_annotation_remembers_the_manifest_but_not_itself() -> None:
    tree = {"kind": "Pod", "metadata": {"name": "a", "annotations": {"mine": "1"}}}
    once = apply.annotated(tree)
    assert json.loads(once["metadata"]["annotations"][apply.LAST_APPLIED]) == tree
    assert apply.annotated(once) == once
