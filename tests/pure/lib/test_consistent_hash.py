from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.lib.consistent_hash import maglev

names = st.lists(st.text(min_size=1, max_size=8), unique=True, min_size=1, max_size=9)


@given(names)
@settings(max_examples=50)
def test_shares_differ_by_at_most_one_slot(members: list[str]) -> None:
    shares = Counter(maglev(members, 1021))
    assert len(shares) == len(members)
    assert max(shares.values()) - min(shares.values()) <= 1


@given(names, st.randoms())
@settings(max_examples=50)
def test_the_order_of_the_names_does_not_matter(members: list[str], random) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)
    assert maglev(shuffled, 251) == maglev(members, 251)


@given(names.filter(lambda members: len(members) > 1), st.data())
@settings(max_examples=50)
def test_few_slots_of_the_members_that_stay_move_when_one_goes(members: list[str], data) -> None:
    size = 1021
    gone = data.draw(st.sampled_from(members))
    rest = sorted(set(members) - {gone})
    before = [sorted(members)[index] for index in maglev(members, size)]
    after = [rest[index] for index in maglev(rest, size)]
    moved = sum(1 for old, new in zip(before, after, strict=True) if old not in (gone, new))
    assert moved <= size * 0.2, "the paper's figure 12: a few per cent"


@pytest.mark.parametrize(("members", "size", "reason"), [(["a"], 10, "prime"), (["a", "b", "c"], 2, "fit"), (["a", "a"], 7, "twice")])
def test_what_cannot_be_built_is_refused(members: list[str], size: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        maglev(members, size)


def test_no_names_give_no_table() -> None:
    assert maglev([], 7) == ()
    assert maglev(["a", "b"], 2) in {(0, 1), (1, 0)}
