"""The examples in the READMEs of the kinds are true."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

import podwire
from podwire.apiserver import cells, quantity


@pytest.mark.parametrize("folder", ["apiserver/admission", "apiserver/cel", "apiserver/extension", "apiserver/kinds", "compute"])
def test_the_readme_tells_the_truth(folder: str) -> None:
    readme = Path(podwire.__file__).parent / folder / "README.md"
    result = doctest.testfile(str(readme), module_relative=False)
    assert (result.failed, result.attempted > 0) == (0, True)


@pytest.mark.parametrize("module", [cells, quantity])
def test_the_docstrings_tell_the_truth(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert (result.failed, result.attempted > 0) == (0, True)
