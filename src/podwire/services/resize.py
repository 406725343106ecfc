"""One endpoint more of a Service, or one less, as in every rollout: what is told to a kernel of them is three elements at most.

What belongs here: seeing that this is all that a change is, who sits where after it, and the rows before and after. What must not: any
other change, what a kernel holds (ruleset.py).

How it works: an endpoint that comes sits down in the slot after the last one; in the slot of one that goes the last one sits down. So the
rows of no other endpoint change, and how many there are changes nothing but the time to compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from podwire.nft.rows import Form, cut
from podwire.services.alike import claims_alike, named_alike
from podwire.services.desired import ServiceProgram
from podwire.services.elements import COMMENT, endpoints_bytes, mark, target_name
from podwire.services.numbers import Numbers
from podwire.views.backends import Backend, Backends

Note: TypeAlias = tuple[str, bytes, bytes | None, bytes | None]
"""A map, a key, and the row there before and after."""

_SIZE = 8  # bytes of an endpoint of IPv4 as a value of ``backends``


def notes(old: ServiceProgram, new: ServiceProgram, node: str, numbers: Numbers, written: Mapping[str, Form]) -> list[Note] | None:
    """Seat the endpoint that came, or let go of the one that went, and write what is to be told.

    None, with nothing done: it is another change, an endpoint of this node, or it is not beyond doubt who sits where.
    """
    if not (old.plain and new.plain) or not len(old.ports) == 1 == len(new.ports):
        return None
    before, after = old.ports[0].cluster, new.ports[0].cluster
    if type(before) is not Backends or type(after) is not Backends or before.port != after.port or not before.family == after.family == 4:
        return None  # an address of IPv6 may be written in several ways
    count, grows = len(before), len(after) > len(before)
    if abs(len(after) - count) != 1 or not claims_alike(old, new) or not named_alike(old, new):
        return None
    more, fewer = (after, before) if grows else (before, after)
    differ = _endpoints(more) - (rest := _endpoints(fewer))
    if len(differ) != 1 or len(rest) != len(fewer):  # others changed, too
        return None
    ((address, on, pod),) = differ
    target = target_name(old.key, new.ports[0])
    number, seated = numbers.seated(target)
    if on in (node, "") or seated is None or len(seated) != count * _SIZE:
        return None
    try:
        (endpoint,) = endpoints_bytes((address,), before.port)
    except ValueError:
        return None
    rows = _Rows(written, target, mark(number))
    at = _slot(seated, endpoint)
    if grows:
        if at is not None:
            return None
        numbers.seat_again(target, seated + endpoint)
        return [rows.of(count, None, rows.row(count, endpoint, pod)), rows.size(count, count + 1)]
    if at is None:
        return None
    end, last = count - 1, seated[-_SIZE:]
    if at == end:
        numbers.seat_again(target, seated[:-_SIZE])
        return [rows.of(end, rows.row(end, endpoint, pod), None), rows.size(count, end)]
    other = _named(after, last)
    if other is None:
        return None
    numbers.seat_again(target, seated[: at * _SIZE] + last + seated[(at + 1) * _SIZE : -_SIZE])
    return [
        rows.of(at, rows.row(at, endpoint, pod), rows.row(at, last, other.pod)),
        rows.of(end, rows.row(end, last, other.pod), None),
        rows.size(count, end),
    ]


def _endpoints(columns: Backends) -> set[tuple[str, str, str]]:
    return set(zip(columns.addresses.split(" "), columns.nodes.split(" "), columns.pods.split(" "), strict=True))


def _slot(seated: bytes, endpoint: bytes) -> int | None:
    at = seated.find(endpoint)
    while at % _SIZE and at > 0:
        at = seated.find(endpoint, at + 1)
    return None if at < 0 else at // _SIZE


def _named(columns: Backends, endpoint: bytes) -> Backend | None:
    address, words = ".".join(map(str, endpoint[:4])), columns.addresses.split(" ")
    return columns[words.index(address)] if address in words else None


class _Rows:
    """The rows of one id."""

    def __init__(self, written: Mapping[str, Form], target: str, number: bytes) -> None:
        self._backends, self._sizes, self._target, self._number = written["backends"], written["sizes"], target, number

    def of(self, slot: int, before: bytes | None, after: bytes | None) -> Note:
        return "backends", self._number + mark(slot), before, after

    def row(self, slot: int, endpoint: bytes, pod: str) -> bytes:
        label = f"{self._target} {pod}" if pod else self._target
        return self._backends.write(self._number + mark(slot), endpoint, cut(label.encode(), COMMENT))

    def size(self, before: int, after: int) -> Note:
        write, text = self._sizes.write, cut(self._target.encode(), COMMENT)
        return "sizes", self._number, write(self._number, mark(before), text), write(self._number, mark(after), text)
