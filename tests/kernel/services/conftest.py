"""Controls: with PODWIRE_CONTROLS=1 (``make controls``) the packet tests run without the tables under test, and each must fail.

A packet test that passes then shows nothing: it must be written anew.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kernel.services import dialect
from kernel.services.wires import CONTROLS

IN_EACH_DIALECT = ("test_packets.py", "test_rows.py")
PACKETS = ("test_packets.py", "test_rows.py", "test_udp.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if CONTROLS and item.path.name in PACKETS and item.path.parent.name == "services" and "control" not in item.keywords:
            item.add_marker(pytest.mark.xfail(strict=True, reason="the table under test is taken away"))
        elif CONTROLS and "/kernel/services/" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="shows no packet of a Service"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.path.name in IN_EACH_DIALECT:
        both = metafunc.definition.get_closest_marker("nftables") is None
        metafunc.parametrize("in_dialect", dialect.DIALECTS if both else [dialect.NFTABLES], indirect=True)


@pytest.fixture(autouse=True)
def in_dialect(request: pytest.FixtureRequest) -> Iterator[None]:
    dialect.chosen = getattr(request, "param", dialect.NFTABLES)
    yield
    dialect.chosen = dialect.NFTABLES
