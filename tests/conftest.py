"""What all tests share: namespaces of their own for kernel tests, one seed for hypothesis in CI."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

from isolation import pytest_collection_modifyitems, pytest_pyfunc_call

__all__ = ["pytest_collection_modifyitems", "pytest_pyfunc_call"]

pytest.register_assert_rewrite("lab", "running_apiserver", "running_controllers")  # their assertions say what was compared

# Who starts the tests in the background lets them ignore Ctrl-C, and with them all that they start, of which some is to hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long a machine takes to make an example says nothing of what is tested.
hypothesis.settings.register_profile("default", deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("default"), derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")
