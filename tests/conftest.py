"""What all tests share: namespaces of their own for kernel tests, one seed for hypothesis in CI."""

from __future__ import annotations

import os

import hypothesis

from isolation import pytest_collection_modifyitems, pytest_pyfunc_call

__all__ = ["pytest_collection_modifyitems", "pytest_pyfunc_call"]

hypothesis.settings.register_profile("default", deadline=None, database=None)
hypothesis.settings.register_profile("ci", deadline=None, database=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")
