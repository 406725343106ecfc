"""Quantities, as resources are written: ``100m``, ``64Mi``, ``0.5``, ``1e3``, read as exact numbers.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

_BINARY = {suffix: 1 << 10 * power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_quantity = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?[0-9]{1,3})").fullmatch


class Malformed(ValueError):
    """A text that is no quantity."""


@functools.lru_cache(maxsize=4096)
def exact(text: str) -> Fraction:
    """Read a quantity. Raises Malformed.

    >>> [str(exact(text)) for text in ("100m", "64Mi", "0.5", "1e3")]
    ['1/10', '67108864', '1/2', '1000']
    """
    match = _quantity(text)
    if match is None:
        raise Malformed(f"{text!r} is no quantity, as 100m or 64Mi are")
    suffix = match[2]
    if suffix in _BINARY:
        return Fraction(match[1]) * _BINARY[suffix]
    return Fraction(match[1]) * Fraction(10) ** (_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:]))


@functools.lru_cache(maxsize=4096)
def thousandths(quantity: str | float) -> int:
    """Read a quantity in thousandths, rounded up: what resources are counted in. Raises Malformed."""
    number = exact(quantity) if isinstance(quantity, str) else Fraction(quantity)
    return -int(-number * 1000 // 1)
