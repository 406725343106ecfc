"""The examples of the README do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import podwire
from kernel.linux.starting import first_process


def test_the_examples() -> None:
    page = (Path(podwire.__file__).parent / "linux" / "README.md").read_text()
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(example, "README.md", "exec"), names)
    with first_process() as first:
        names["use"](first.path)
        assert first.client.programs() == {}
