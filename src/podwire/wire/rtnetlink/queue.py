"""The queue of a link: a token bucket that holds its rate.

Source: tc-tbf(8); include/uapi/linux/pkt_sched.h, net/sched/sch_tbf.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

from podwire.wire import netlink
from podwire.wire.rtnetlink.request import FLAGS, UNSPECIFIED, Part, Verb

NEWQDISC, DELQDISC, GETQDISC = 36, 37, 38

_HEADER: Final = Struct("=BxxxiIII")  # family, index, handle, parent, info
_KIND, _OPTIONS = 1, 2
_PARAMETERS, _RATE64, _BURST = 1, 4, 6
_RATE: Final = Struct("=BBHhHI")  # cell, link layer, overhead, alignment, least size, bytes a second
_ETHERNET: Final = 1  # a link layer that is said needs no table of times
_TICKS: Final = Struct("=III")  # limit, buffer, mtu
_ROOT: Final = 0xFFFFFFFF
_MOST: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """What leaves by a link: ``rate`` bytes a second on average, ``burst`` bytes at once; ``limit`` bytes wait, what is more is dropped."""

    link: str
    rate: int
    burst: int
    limit: int

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:
        """One message."""
        header = _HEADER.pack(UNSPECIFIED, index(self.link), 0, _ROOT, 0)
        if verb == "delete":
            yield Part(DELQDISC, 0, header)
            return
        rate = _RATE.pack(0, _ETHERNET, 0, 0, 0, min(self.rate, _MOST))
        options = [
            netlink.attribute(_PARAMETERS, rate + bytes(_RATE.size) + _TICKS.pack(self.limit, 0, 0)),
            netlink.u32(_BURST, self.burst),
        ]
        options += [netlink.u64(_RATE64, self.rate)] if self.rate >= _MOST else []
        yield Part(NEWQDISC, FLAGS[verb], header + netlink.string(_KIND, "tbf") + netlink.nested(_OPTIONS, *options))

    def printed(self, verb: Verb) -> str:
        """As ``tc qdisc`` takes it."""
        words = "" if verb == "delete" else f" tbf rate {8 * self.rate}bit burst {self.burst}b limit {self.limit}b"
        return f"tc qdisc {verb} dev {self.link} root{words}"

    @classmethod
    def decode(cls, payload: bytes, names: Mapping[int, str]) -> TokenBucket | None:
        """From a ``NEWQDISC`` message; None for another kind of queue. The kernel tells the burst as time, so that is left 0."""
        _, number, _, _, _ = _HEADER.unpack_from(payload)
        found = netlink.attributes(payload, _HEADER.size)
        if netlink.to_string(found.get(_KIND, b"")) != "tbf":
            return None
        options = netlink.attributes(found[_OPTIONS])
        rate = netlink.to_int(options[_RATE64]) if _RATE64 in options else _RATE.unpack_from(options[_PARAMETERS])[5]
        limit = _TICKS.unpack_from(options[_PARAMETERS], 2 * _RATE.size)[0]
        return cls(names.get(number, f"if{number}"), rate, 0, limit)


def dump() -> bytes:
    """The payload of a ``GETQDISC`` dump."""
    return _HEADER.pack(UNSPECIFIED, 0, 0, 0, 0)
