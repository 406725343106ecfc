"""Quantities, as resources are written: ``100m``, ``64Mi``, ``0.5``, ``1e3``.

Here: reading one as an exact number and writing it in the one canonical form. Not here: fields that hold them.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import functools
import re
from decimal import ROUND_CEILING, Decimal

MALFORMED = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_LONGEST = 128  # letters: no amount needs more, and a million digits cost minutes
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_WRITTEN = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_quantity = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]?|[eE][+-]?[0-9]{1,3})").fullmatch


class Malformed(ValueError):
    """A text that is no quantity."""


def _split(text: str) -> tuple[Decimal, str]:
    match = _quantity(text) if len(text) <= _LONGEST else None
    if match is None:
        raise Malformed(MALFORMED)
    return Decimal(match[1]), match[2]


def _scaled(number: Decimal, suffix: str) -> Decimal:
    if suffix in _BINARY:
        return number * (1 << 10 * _BINARY[suffix])
    return number.scaleb(_DECIMAL[suffix] if suffix in _DECIMAL else int(suffix[1:]))


@functools.lru_cache(maxsize=4096)  # what is malformed is not kept
def value(text: str) -> Decimal:
    """Read a quantity. Raises Malformed."""
    return _scaled(*_split(text))


@functools.lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """Write a quantity in its canonical form: no fraction, the largest suffix that allows that. Raises Malformed.

    What is smaller than a billionth is rounded up to one.

    >>> [canonical(text) for text in ("0.5", "1024Mi", "1000m", "1.5Gi", "2e3", "0", "100m", "1500m", "0.1Mi")]
    ['500m', '1Gi', '1', '1536Mi', '2e3', '0', '100m', '1500m', '104857600m']
    """
    number, suffix = _split(text)
    exact = _scaled(number, suffix)
    if exact == 0:
        return "0"
    if suffix in _BINARY and exact == exact.to_integral_value():
        return _binary(int(exact))
    nanos = int((exact * 10**9).to_integral_value(rounding=ROUND_CEILING))
    exponent = -9
    while nanos % 1000 == 0 and exponent < 18:
        nanos //= 1000
        exponent += 3
    if suffix[:1] in ("e", "E") and suffix != "E" and suffix not in _BINARY:
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_WRITTEN[exponent]}"


def _binary(whole: int) -> str:
    if abs(whole) < 1024:
        return str(whole)
    power = 0
    while whole % 1024 == 0 and power < 6:
        whole //= 1024
        power += 1
    return f"{whole}{next((suffix for suffix, one in _BINARY.items() if one == power), '')}"


def text(name: str, amount: Decimal) -> str:
    """Print an amount of something; bytes by powers of 1,024, where that is exact."""
    if name.endswith(("memory", "storage")) and amount and amount % 1024 == 0:
        return canonical(f"{amount // 1024}Ki")
    return canonical(format(amount, "f"))
