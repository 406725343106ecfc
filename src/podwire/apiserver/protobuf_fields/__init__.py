"""The numbers of fields in Kubernetes' protobuf encoding: the ``.txt`` files beside this one, one for each package of types.

Here: numbers and names, nothing else; types come from the schemas (``definitions.py``). A line is a message and its fields in the order
of their numbers, which count from 1; a gap is spelled out:

    ServicePort name protocol port* targetPort nodePort appProtocol*
    ServiceSpec ports selector clusterIP type externalIPs 7:sessionAffinity ...
    Volume name* +VolumeSource

``*``: a zero (``0``, ``false``, an empty text) says something. Without it a zero is a field that was left out, which the encoding writes
all the same. ``+``: a message whose fields JSON has among those of its owner; its name is that of its type.

Source: the ``generated.proto`` files and field tags of https://github.com/kubernetes/api, .../apimachinery, .../apiextensions-apiserver
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Numbered:
    """One field. ``inline`` names the type (with its package) whose fields stand in for it."""

    name: str
    zero_counts: bool = False
    inline: str = ""


def fields(definition: str) -> Mapping[int, Numbered] | None:
    """Give the fields of a message by their numbers; None for one that has no protobuf encoding here."""
    package, _, name = definition.rpartition(".")
    return _package(package).get(name)


@functools.cache
def _package(package: str) -> Mapping[str, Mapping[int, Numbered]]:
    path = _FOLDER / f"{package}.txt"
    if not path.exists():
        return {}
    lines = (line.split() for line in path.read_text().splitlines() if not line.startswith("#"))
    return {name: dict(_numbered(package, words)) for name, *words in lines}


def _numbered(package: str, words: list[str]) -> Iterator[tuple[int, Numbered]]:
    number = 0
    for word in words:
        explicit, colon, rest = word.rpartition(":")
        number = int(explicit) if colon else number + 1
        name = rest.rstrip("*").removeprefix("+")
        yield number, Numbered(name, rest.endswith("*"), f"{package}.{name}" if rest.startswith("+") else "")
