"""Annotations of bandwidth: what they say, and what is none."""

from __future__ import annotations

import pytest

from podwire.pods.bandwidth import EGRESS, INGRESS, Rates, Unreasonable, rates
from podwire.pods.cni.configuration import Rate


def test_each_way_has_a_rate_of_its_own() -> None:
    assert rates({}) == Rates()
    assert not rates({"other": "1M"})
    assert rates({INGRESS: "10M"}) == Rates(ingress=Rate(10_000_000, 1_000_000))
    assert rates({INGRESS: "1e9", EGRESS: "1Ki"}) == Rates(Rate(10**9, 10**8), Rate(1024, 131_072))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fast", "quantities must match the regular expression"),
        ("", "quantities must match the regular expression"),
        ("999", "resource is unreasonably small"),
        ("-1M", "resource is unreasonably small"),
        ("2P", "resource is unreasonably large"),
    ],
)
def test_what_is_no_rate(text: str, words: str) -> None:
    with pytest.raises(Unreasonable, match=f"annotation {EGRESS} '{text}': {words}"):
        rates({EGRESS: text})
