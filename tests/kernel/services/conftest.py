"""Controls: with PODWIRE_CONTROLS=1 (``make controls``) the packet tests run without the tables under test, and each must fail.

A packet test that passes then shows nothing: it must be written anew.
"""

from __future__ import annotations

import pytest

from kernel.services.wires import CONTROLS

PACKETS = ("test_packets.py", "test_rows.py", "test_udp.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if CONTROLS and item.path.name in PACKETS and item.path.parent.name == "services" and "control" not in item.keywords:
            item.add_marker(pytest.mark.xfail(strict=True, reason="the table under test is taken away"))
        elif CONTROLS and "/kernel/services/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="shows no packet of a Service"))
