"""Names that are made up: suffixes of Pods, hashes of templates.

The letters leave out vowels, so that no word comes about, and figures that look like letters: the alphabet of the Kubernetes API.

Pure: the random number is a parameter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX = 5


def suffix(below: Callable[[int], int], length: int = SUFFIX) -> str:
    """Make a suffix; ``below(n)`` gives a random number from 0 to n - 1."""
    return "".join(ALPHABET[below(len(ALPHABET))] for _ in range(length))


def template_hash(template: dict[str, Any], collisions: int = 0) -> str:
    """Give the value of the label ``pod-template-hash``: the same for the same template, whatever the order of its fields."""
    canonical = msgspec.json.encode(template, order="sorted") + (b"#%d" % collisions if collisions else b"")
    number = int.from_bytes(hashlib.blake2b(canonical, digest_size=8).digest(), "big")
    letters = []
    for _ in range(10):
        number, rest = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[rest])
    return "".join(letters)
