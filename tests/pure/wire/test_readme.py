"""The examples of the README do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import podwire


def test_the_examples() -> None:
    page = (Path(podwire.__file__).parent / "wire" / "README.md").read_text()
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(example, "README.md", "exec"), names)
    assert names
