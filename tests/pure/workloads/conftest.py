"""What tests of controllers share: one API server for each file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import running_apiserver


@pytest.fixture(scope="module")
def server() -> Iterator[running_apiserver.ApiServer]:
    with tempfile.TemporaryDirectory(prefix="pw") as folder:
        started = running_apiserver.start(Path(folder))
        try:
            yield started
        finally:
            started.stop()
            started.listener.close()
