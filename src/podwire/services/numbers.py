"""The numbers by which the tables know Services and endpoints: ids, slots and handles.

What belongs here: giving numbers, keeping them, and learning them again from what a kernel holds. What must not: what is made of them.

- An *id* stands for one Service port in one view (desired.py). It is the connection mark of every connection through it, for as long
  as that lives, so an id is never given twice: numbers only grow, and ``ceiling`` is written to the kernel before a number
  below it is used, so that a new process goes on above it. The ids of a port are alike but for the last two bits, which tell the view:
  without them they are what affinity remembers clients by, so that it is kept over views.
- A *slot* numbers the endpoints of an id without gaps, because a random number chooses one. When an endpoint goes, the one in the last
  slot takes its place: all others stay where they are.
- A *handle* stands for one endpoint of a port for clients that keep to it (session affinity), whatever slot it has. Handles and ids
  are drawn from one counter that begins above all slots.

Endpoints are told apart by the packed address and port that the kernel's map holds. Those of an id are kept by slot as one string of
bytes: to find one is to read one place in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

FIRST = 0x10000
BLOCK = 4096
VIEWS = {"cluster": 0, "internal": 1, "external": 2}
STEP = 4


class Numbers:
    """One writer. ``ceiling`` is the number below which all given numbers lie; it moves in steps, to be written rarely."""

    def __init__(self) -> None:
        self._next = FIRST
        self.ceiling = FIRST
        self._slots: dict[int, bytes] = {}
        self._bases: dict[str, int] = {}
        self._handles: dict[str, dict[bytes, int]] = {}

    def id(self, target: str, view: str) -> int:
        """Give the id of a Service port (as ``shop/users:http/TCP``) in a view: the one that it has, or a new one."""
        base = self._bases.get(target)
        if base is None:
            base = self._bases[target] = self._draw(STEP)
        return base | VIEWS[view]

    def seat(self, target: str, wanted: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        """Give the id of a Service port in the cluster view, and its endpoints by slot: ``id`` and ``slots`` in one, for there are many."""
        base = self._bases.get(target)
        if base is not None:
            return base, self.slots(base, wanted)
        base = self._bases[target] = self._draw(STEP)
        self._slots[base] = b"".join(wanted)
        return base, wanted

    def slots(self, number: int, wanted: Sequence[bytes]) -> Sequence[bytes]:
        """Seat the endpoints of an id, each of which is wanted once. Returns them by slot: ``wanted`` itself, if that is their order.

        Those that were seated keep their slots, but for the last ones, which fill gaps.
        """
        packed, before = b"".join(wanted), self._slots.get(number)
        if before is not None and before != packed and wanted:
            wanted = _seated(_cut(before, len(wanted[0])), wanted)
            packed = b"".join(wanted)
        self._slots[number] = packed
        return wanted

    def exchange(self, target: str, gone: bytes, came: bytes, count: int) -> tuple[int, int] | None:
        """Seat an endpoint in the place of another of the ``count`` that a port has in the cluster view, as ``slots`` would.

        Gives the id and the slot; None, with nothing done, if it is not beyond doubt that exactly one is to be replaced.
        """
        number, size = self._bases.get(target, 0), len(came)
        seated = self._slots.get(number, b"")
        at = seated.find(gone)
        if at < 0 or at % size or len(seated) != count * size or seated.find(gone, at + 1) >= 0 or seated.find(came) >= 0:
            return None
        self._slots[number] = seated[:at] + came + seated[at + size :]
        return number, at // size

    def handles(self, target: str, endpoints: Iterable[bytes]) -> dict[bytes, int]:
        """Give the handle of each endpoint that a port has in any view. An endpoint that left and comes back gets a new one."""
        old = self._handles.get(target, {})
        result = {endpoint: old[endpoint] if endpoint in old else self._draw() for endpoint in endpoints}
        self._handles[target] = result
        return result

    def drop(self, target: str) -> None:
        """Forget a Service port that is gone. Its ids are not given again."""
        base = self._bases.pop(target, None)
        self._handles.pop(target, None)
        if base is not None:
            for view in VIEWS.values():
                self._slots.pop(base | view, None)

    def adopt(self, target: str, view: str, number: int, seated: list[bytes], handles: Mapping[bytes, int]) -> None:
        """Take over what a kernel holds for a Service port: its endpoints by slot, their handles."""
        self._bases[target] = base = number - VIEWS[view]
        self._slots[number] = b"".join(seated)
        if handles:
            self._handles.setdefault(target, {}).update(handles)
        self.raise_to(max(base + STEP, *(handle + 1 for handle in handles.values())) if handles else base + STEP)

    def raise_to(self, number: int) -> None:
        """Give only numbers from here on."""
        if number > self._next:
            self._next = number
            self.ceiling = max(self.ceiling, number)

    def fits(self, target: str, view: str, number: int) -> bool:
        """Say whether an id may be a port's in a view, beside those that it has."""
        base = number - VIEWS[view]
        return not base % STEP and self._bases.get(target, base) == base

    def _draw(self, count: int = 1) -> int:
        """Draw so many numbers, and give the first, a multiple of their count."""
        number = -(-self._next // count) * count
        self._next = number + count
        if self._next > self.ceiling:
            self.ceiling = self._next + BLOCK
        return number


def _cut(packed: bytes, size: int) -> list[bytes]:
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def _seated(old: Sequence[bytes], new: Sequence[bytes]) -> list[bytes]:
    wanted, held = set(new), set(old)
    arriving = [endpoint for endpoint in new if endpoint not in held]
    if len(new) == len(old) == len(held) and len(arriving) == 1:  # one came for one that went, as most often
        return [endpoint if endpoint in wanted else arriving[0] for endpoint in old]
    # A kernel that was read between two batches may hold one endpoint in two slots: the later one is free.
    seats: list[bytes | None] = []
    leaving = held - wanted
    for endpoint in old:
        seats.append(None if endpoint in leaving else endpoint)
        leaving.add(endpoint)
    arriving.reverse()
    for slot, seat in enumerate(seats):
        if seat is None and arriving:
            seats[slot] = arriving.pop()
    seats.extend(reversed(arriving))
    for slot in range(len(seats)):
        while seats and seats[-1] is None:
            seats.pop()
        if slot >= len(seats):
            break
        if seats[slot] is None:
            seats[slot] = seats.pop()
    return [endpoint for endpoint in seats if endpoint is not None]
