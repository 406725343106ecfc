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
bytes: to find one is to read one place in memory. Those of the cluster view, which nearly all ids are of, stand beside the port's number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

FIRST = 0x10000
BLOCK = 4096
VIEWS = {"cluster": 0, "internal": 1, "external": 2}
STEP = 4
_NOTHING = 0, b""


class Numbers:
    """One writer. ``ceiling`` is the number below which all given numbers lie; it moves in steps, to be written rarely.

    ``read`` gives the endpoints of an id by slot as a kernel was found to hold them, as long as there are ports of which that is not
    known yet.
    """

    def __init__(self) -> None:
        self._next = FIRST
        self.ceiling = FIRST
        # The id in the cluster view, and who is seated there: None where only a kernel that was read could tell.
        self._ports: dict[str, tuple[int, bytes | None]] = {}
        self.read: Callable[[int], list[bytes]] | None = None
        self._local: dict[int, bytes | None] = {}  # who is seated in the other views
        self._handles: dict[str, dict[bytes, int]] = {}

    def id(self, target: str, view: str) -> int:
        """Give the id of a Service port (as ``shop/users:http/TCP``) in a view: the one that it has, or a new one."""
        port = self._ports.get(target)
        if port is None:
            port = self._ports[target] = self._draw(STEP, STEP), b""
        return port[0] | VIEWS[view]

    def seat(self, target: str, view: str, wanted: Sequence[bytes]) -> tuple[int, Sequence[bytes]]:
        """Seat the endpoints of a Service port in a view, each of which is wanted once.

        Gives the id, and them by slot: ``wanted`` itself, if that is their order. Those that were seated keep their slots, but for the last
        ones, which fill gaps.
        """
        packed = b"".join(wanted)
        port = self._ports.get(target)
        if port is None:
            port = self._draw(STEP, STEP), packed if view == "cluster" else b""
            self._ports[target] = port
            if view == "cluster":
                return port[0], wanted
        base, before = port
        number = base | VIEWS[view]
        if view != "cluster":
            before = self._local.get(number, b"")
        if before is None:
            before = self._read(number)
        if before != packed:
            if before and wanted:
                wanted = _seated(_cut(before, len(wanted[0])), wanted)
                packed = b"".join(wanted)
            if view == "cluster":
                self._ports[target] = base, packed
            else:
                self._local[number] = packed
        return number, wanted

    def seated_otherwise(self, targets: Sequence[str], packed: Sequence[bytes]) -> set[int]:
        """Say which of these ports, by place, are known to have other endpoints in the cluster view than these, or in another order."""
        if self._ports.keys().isdisjoint(targets):
            return set()
        held = list(map(self._ports.get, targets))
        return {
            at for at, (port, wanted) in enumerate(zip(held, packed, strict=True)) if port is not None and port[1] not in (wanted, None)
        }

    def seat_all(self, targets: Sequence[str], packed: Sequence[bytes]) -> list[int]:
        """Give the ids of ports in the cluster view that have these endpoints in this order, as far as is known, and now have."""
        ports = self._ports
        new = [target for target in targets if target not in ports]
        if len(new) == len(targets):
            first = self._draw(STEP * len(new), STEP)
            ids = list(range(first, first + STEP * len(new), STEP))
        else:
            ids = [self.id(target, "cluster") for target in targets]
        ports.update(zip(targets, zip(ids, packed, strict=True), strict=True))
        return ids

    def seat_as_read(self, targets: Iterable[str]) -> None:
        """Seat the endpoints of ports as the kernel was found to hold them."""
        for target in targets:
            base = self.id(target, "cluster")
            self._ports[target] = base, self._read(base)

    def read_all(self) -> None:
        """Take what is not known yet out of what was read, which may then be forgotten."""
        self.seat_as_read([target for target, (_, seated) in self._ports.items() if seated is None])
        self._local |= {number: self._read(number) for number, seated in self._local.items() if seated is None}
        self.read = None

    def _read(self, number: int) -> bytes:
        return b"".join(self.read(number)) if self.read is not None else b""

    def seated(self, target: str) -> tuple[int, bytes | None]:
        """Give the id of a port in the cluster view, and who is seated there, by slot: None if that is not known."""
        number, seated = self._ports.get(target, _NOTHING)
        return number, seated if number else None

    def seat_again(self, target: str, seated: bytes) -> None:
        """Seat others under the id that a port has in the cluster view."""
        self._ports[target] = self._ports[target][0], seated

    def exchange(self, target: str, gone: bytes, came: bytes, count: int) -> tuple[int, int] | None:
        """Seat an endpoint in the place of another of the ``count`` that a port has in the cluster view, as ``seat`` would.

        Gives the id and the slot; None, with nothing done, if it is not beyond doubt that exactly one is to be replaced.
        """
        number, seated = self._ports.get(target, _NOTHING)
        if seated is None:
            return None
        at, size = seated.find(gone), len(came)
        if at < 0 or at % size or len(seated) != count * size or seated.find(gone, at + 1) >= 0 or seated.find(came) >= 0:
            return None
        self._ports[target] = number, seated[:at] + came + seated[at + size :]
        return number, at // size

    def handles(self, target: str, endpoints: Iterable[bytes]) -> dict[bytes, int]:
        """Give the handle of each endpoint that a port has in any view. An endpoint that left and comes back gets a new one."""
        old = self._handles.get(target, {})
        result = {endpoint: old[endpoint] if endpoint in old else self._draw() for endpoint in endpoints}
        self._handles[target] = result
        return result

    def drop(self, target: str) -> None:
        """Forget a Service port that is gone. Its ids are not given again."""
        port = self._ports.pop(target, None)
        self._handles.pop(target, None)
        if port is not None:
            for view in VIEWS.values():
                self._local.pop(port[0] | view, None)

    def adopt(self, target: str, view: str, number: int, seated: list[bytes] | None, handles: Mapping[bytes, int]) -> None:
        """Take over what a kernel holds for a Service port: its endpoints by slot, or None for those that are to be ``read``; handles."""
        base = number - VIEWS[view]
        packed = b"".join(seated) if seated is not None else None
        if view == "cluster":
            self._ports[target] = base, packed
        else:
            self._ports.setdefault(target, (base, b""))
            self._local[number] = packed
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
        port = self._ports.get(target)
        return not base % STEP and (port is None or port[0] == base)

    def _draw(self, count: int = 1, multiple: int = 1) -> int:
        """Draw so many numbers, and give the first, a multiple of ``multiple``."""
        number = -(-self._next // multiple) * multiple
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
