"""The pages of a node: where they listen."""

from __future__ import annotations

import socket

import pytest

from podwire.services import pages


def test_a_check_listens_at_all_its_addresses_or_at_none() -> None:
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            pages.listening_on(["127.0.0.1", "127.0.0.2"], port)
        with pages.listening("127.0.0.1", port):
            pass
    for one in pages.listening_on(["127.0.0.1", "127.0.0.2"], port):
        one.close()
