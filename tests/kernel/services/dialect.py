"""In which words the service proxy speaks to the kernel: packet tests run in each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

NFTABLES, IPTABLES = "nftables", "iptables"
DIALECTS = (NFTABLES, IPTABLES)
chosen = NFTABLES  # set for each test, before it is called in namespaces of its own


def of_nftables(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test of the tables themselves, which are nftables'."""
    marked: Callable[..., Any] = pytest.mark.nftables(test)
    return marked
