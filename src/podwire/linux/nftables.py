"""The ruleset of one network namespace: the blocking door to nf_tables.

One method changes it, ``apply``: all changes or none, acknowledged; ``pour`` does so with one transaction after the other while the next
are made. One reads it, ``dump``. What the values mean is in
``podwire.nft``; here are the socket, the acknowledgements and the refusals.

The kernel carries a transaction out while it is being sent, so its answers are there when ``send`` returns. A
transaction is one datagram and must fit into the send buffer, which an ordinary user cannot raise beyond 212,992 bytes on a
stock kernel: ``apply_batches`` is for more, and ``nft.batches`` cuts.

To list a big set takes the kernel long, for each datagram anew: a second thread waits for the next ones while those before are read. What
takes it longest it does not list: whoever knows the keys of a set has its elements looked up (``nft.lookup``). That they are all is known
from the kernel's count; if they are not, they are listed.

Source: net/netfilter/nfnetlink.c and nf_tables_api.c of the Linux kernel.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from podwire.linux import namespaces
from podwire.linux.asking import Asking
from podwire.linux.errors import KernelRefused
from podwire.linux.sending import Sending
from podwire.linux.syscalls import Datagrams, Taken
from podwire.nft import bytecode, dump
from podwire.nft.changes import Change
from podwire.nft.commands import element_at, render_change
from podwire.nft.lookup import NONE_KEYED, Keyed, Lookup
from podwire.nft.model import Chain, Rule, Ruleset, Set, Table, TableName
from podwire.nft.rows import Packed, has_rows
from podwire.wire import netlink, nfnetlink
from podwire.wire.netlink import string
from podwire.wire.nfnetlink import NFTA

_RECEIVE_BYTES: Final = 65_536
_AT_HAND: Final = int(socket.MSG_DONTWAIT)
_ANSWER_BYTES: Final = 4_096  # one answer, which repeats nothing of what was asked: some words at most
_DUMP_BYTES: Final = 32_768  # the kernel never writes more into one datagram of a dump
_RECEIVE_COUNT: Final = 128
_BIG: Final = 20_000  # elements from where on two threads list a set: of few a thread costs more than it saves
# Elements from where on they are looked up if their keys are known. The processor's time for a table of which so many were in one map,
# listed and looked up: 0.15 and 0.20 s of 45,000, 0.31 and 0.33 s of 65,000, 0.36 and 0.35 s of 80,000, 0.65 to 0.9 and 0.47 s of 100,000.
_LOOK_UP_FROM: Final = 80_000
_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_FORCED_BYTES: Final = 4 << 20  # of the receive buffer, where that may be had: it is doubled
_ASKED_MOST: Final = 3_000  # keys in one question, where it may
_ASKED: Final = 200  # keys in one question: an ordinary user's receive buffer holds 512 answers of 150 bytes, those to two questions
_ANSWERS_BYTES: Final = 212_992
_ATTEMPTS: Final = 20
_NOTES: Final = 5
_FAMILIES: Final = ("ip", "ip6", "inet")


class Nftables:
    """One nftables socket in one network namespace: the descriptor's, or without one the calling thread's own.

    It belongs to one thread at a time. Close it, or use it as a context manager.

    Raises:
        NamespaceGone: the descriptor is no network namespace.
    """

    def __init__(self, namespace: int | None = None, *, look_up_from: int = _LOOK_UP_FROM) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        if namespace is None:
            self._socket = socket.socket(socket.AF_NETLINK, kind, netlink.NETLINK_NETFILTER)
        else:
            self._socket = namespaces.socket_inside(namespace, socket.AF_NETLINK, kind, netlink.NETLINK_NETFILTER)
        for option in (netlink.EXT_ACK, netlink.CAP_ACK):
            self._socket.setsockopt(netlink.SOL_NETLINK, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, bytecode.BATCH_LIMIT)  # the kernel doubles it, up to its own limit
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ANSWERS_BYTES)  # so is this one
        self._socket.bind((0, 0))
        self._sequence = 0
        self._datagrams: Datagrams | None = None
        self.commits = 0  # transactions carried out through this socket
        self.looked_up = 0  # elements that were read by their keys
        self._look_up_from = look_up_from

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket. The ruleset stays."""
        self._socket.close()

    # Changes

    def apply(self, changes: Sequence[Change]) -> None:
        """Carry out the changes as one transaction: when it returns every packet meets all of them, when it raises none.

        Raises:
            KernelRefused: ``what`` is the change that was refused, in nft's words, with the element where the kernel told it;
                ENOENT what it names is not there, EEXIST an element is there with another value, EBUSY it is in use, ENFILE
                the set is full, EMSGSIZE the transaction is too big for the socket.
            Unreadable: a change that cannot be said.
        """
        first = self._sequence + 1
        if len(changes) == 2 and (datagram := bytecode.exchange(changes, first)) is not None:
            self._apply_exchange(datagram, first, changes)
            return
        transaction = bytecode.encode(changes, first)
        if not transaction.origins:
            return
        self._sequence = transaction.last + 1
        try:
            self._socket.send(transaction.datagram)
        except OSError as failed:
            raise _unsent(failed, transaction, changes) from None
        self._carried_out(transaction, changes)

    def _apply_exchange(self, datagram: bytes, first: int, changes: Sequence[Change]) -> None:
        """Do as ``apply`` in as few steps as can be, if the kernel does it."""
        self._sequence = first + 3
        try:
            self._socket.send(datagram)
            answer = self._socket.recv(_ANSWER_BYTES, _AT_HAND)
        except BlockingIOError:
            answer = b""
        except OSError as failed:
            raise _unsent(failed, bytecode.encode(changes, first), changes) from None
        if netlink.carried_out(answer, first + 2):
            self.commits += 1
        else:
            self._carried_out(bytecode.encode(changes, first), changes, answer)

    def _carried_out(self, transaction: bytecode.Transaction, changes: Sequence[Change], heard: bytes = b"") -> None:
        """Take the kernel's answer to what was sent, of which a datagram may have been ``heard``. Raises KernelRefused."""
        refused = self._acknowledged(transaction, changes, heard)
        if refused:
            first = refused[0]
            for other in refused[1 : 1 + _NOTES]:
                first.add_note(f"also refused: {other}")
            raise first
        self.commits += 1

    def pour(self, batches: Iterable[Sequence[Change]]) -> Iterator[None]:
        """Carry out one transaction after the other while the next ones are made, in steps. For tables that no packet meets.

        Raises as ``apply``; of those after the refused one some may be carried out.
        """
        told, refused, sending = deque[tuple[bytecode.Transaction, Sequence[Change]]](), list[KernelRefused](), Sending(self._socket.send)
        try:
            with sending:
                for changes in batches:
                    transaction = bytecode.encode(changes, self._sequence + 1)
                    if transaction.origins:
                        self._sequence = transaction.last + 1
                        told.append((transaction, changes))
                        sending.put(transaction.datagram)
                    self._answers_to(sending, told, refused)
                    if refused or sending.failure is not None:
                        break
                    yield
        finally:  # or who asks next would hear them
            self._answers_to(sending, told, refused)
        if refused:
            raise refused[0]
        if sending.failure is not None:
            raise _unsent(sending.failure, *told[0])

    def _answers_to(
        self, sending: Sending, told: deque[tuple[bytecode.Transaction, Sequence[Change]]], refused: list[KernelRefused]
    ) -> None:
        for _ in range(sending.news()):
            try:
                self._carried_out(*told.popleft())
            except KernelRefused as refusal:
                refused.append(refusal)

    def apply_batches(self, batches: Iterable[Sequence[Change]]) -> None:
        """Carry out one transaction after the other. Raises as ``apply``; those before the refused one stay carried out."""
        for changes in batches:
            self.apply(changes)

    def _acknowledged(self, transaction: bytecode.Transaction, changes: Sequence[Change], heard: bytes) -> list[KernelRefused]:
        refused: list[KernelRefused] = []
        done, last = False, transaction.last
        while not done:  # the answer to the last message comes after all refusals
            try:
                datagram, heard = heard or self._socket.recv(_ANSWER_BYTES, _AT_HAND), b""
            except BlockingIOError:
                break
            if netlink.carried_out(datagram, last):
                return refused
            for answer in netlink.messages(datagram):
                if answer.type != netlink.ERROR:
                    continue
                told = netlink.acknowledgement(answer)
                if told.errno:
                    refused.append(_refusal(transaction, changes, told))
                done = done or told.sequence == last
        if not done and not refused:
            raise KernelRefused(errno.EPROTO, _summary(changes), "the kernel did not answer")
        return refused

    # Questions

    def generation(self) -> int:
        """The number of transactions that this namespace has seen; any change of any table makes it another."""
        (answer,) = self._ask(nfnetlink.GETGEN, what="ask for the ruleset's generation", many=False)
        return netlink.to_be(netlink.attributes(answer, 4)[NFTA.GEN_ID])

    def dump(self, tables: Iterable[TableName] | None = None, keyed: Keyed = NONE_KEYED) -> Ruleset:
        """Read tables as they are, all of one generation; without names all of the families ip, ip6 and inet.

        A table that is not there is left out. ``keyed`` knows the keys of big sets, by name: they are read sooner, and not otherwise.

        Raises:
            KernelRefused: EINTR, when somebody else kept changing the ruleset.
            Unreadable: a set of types that are not known here.
        """
        wanted = None if tables is None else list(tables)
        for _ in range(_ATTEMPTS):
            try:
                before = self.generation()
                found = self._dump(wanted, keyed)
                if self.generation() == before:
                    return found
            except _Changing:
                continue
        raise KernelRefused(errno.EINTR, "list ruleset", "it kept changing")

    def names(self) -> list[TableName]:
        """Give the tables that there are, of all families, whoever made them. Raises KernelRefused: EINTR, as ``dump``."""
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(_Changing):
                return [dump.table_of(payload) for payload in self._ask(nfnetlink.GETTABLE, what="list tables")]
        raise KernelRefused(errno.EINTR, "list tables", "they kept changing")

    def _dump(self, wanted: list[TableName] | None, keyed: Keyed) -> Ruleset:
        payloads = self._ask(nfnetlink.GETTABLE, what="list tables")
        there = {dump.table_of(payload): payload for payload in payloads}
        names = [name for name in there if name[0] in _FAMILIES] if wanted is None else [name for name in wanted if name in there]
        return Ruleset(tuple(self._table(name, there[name], keyed) for name in names))

    def _table(self, name: TableName, told: bytes, keyed: Keyed) -> Table:
        family, what = name[0], f"list table {name[0]} {name[1]}"
        filtered = string(NFTA.TABLE_NAME, name[1])
        declared = [(dump.declaration(payload), payload) for payload in self._ask(nfnetlink.GETSET, family, filtered, what=what)]
        sets = {one.name: one for one, _ in declared}
        # The kernel is long about big ones: others work meanwhile. Where keys are known they are so from the other sets.
        for empty, payload in sorted(declared, key=lambda each: (each[0].name in keyed, -each[0].size)):
            keys = keyed[empty.name](sets) if empty.name in keyed and self._is_to_be_looked_up(empty, payload) else None
            looked_up = self._looked_up(name, empty, keys) if keys is not None and len(keys) == dump.count(payload) else None
            one = looked_up or self._with_elements(name, empty, what, few=_about(empty, payload) < _BIG)
            if not dump.is_whole(payload, one):
                raise _Changing  # a hash table without a declared size grows in the background, and a walk then misses elements
            sets[one.name] = one
        rules: dict[str, list[Rule]] = defaultdict(list)
        for payload in self._ask(nfnetlink.GETRULE, family, filtered, what=what):
            chain, rule = dump.rule(payload, family, sets)
            rules[chain].append(rule)
        chains = [
            dump.chain(payload) for payload in self._ask(nfnetlink.GETCHAIN, family, filtered, what=what) if dump.table_of(payload) == name
        ]
        named = tuple(one for one in sets.values() if not dump.is_inline(one))
        filled = tuple(_with_rules(chain, rules[chain.name]) for chain in chains)
        return Table(family, name[1], named, filled, dump.table_comment(told), dump.table_dormant(told))

    def _with_elements(self, table: TableName, one: Set, what: str, *, few: bool) -> Set:
        asked = string(NFTA.ELEMENTS_TABLE, table[1]) + string(NFTA.ELEMENTS_SET, one.name)
        if few:
            return dump.with_elements(one, self._answers(nfnetlink.GETSETELEM, table[0], asked, what=what, received=self._received()))
        with ThreadPoolExecutor(1, "dump") as ahead:
            answers = self._answers(nfnetlink.GETSETELEM, table[0], asked, what=what, received=self._received_ahead(ahead))
            return dump.with_elements(one, answers)

    def _is_to_be_looked_up(self, one: Set, payload: bytes) -> bool:
        return (dump.count(payload) or 0) >= self._look_up_from and has_rows(one) and not one.flags

    def _looked_up(self, table: TableName, one: Set, keys: Sequence[bytes]) -> Set | None:
        """Have the elements of these keys looked up. None if one is not there, or they are not all, or an answer is not understood."""
        self._sequence += 1
        lookup, rows, asked, wanted = Lookup(table, one, self._sequence), Packed(one, ()), self._asked_at_once(), keys
        while wanted and asked:
            if not self._look_up(lookup, wanted, asked, rows):
                return None
            wanted = [key for key in keys if key not in rows.by_key]
            asked //= 2  # if there are some, the buffer did not hold more
        self.looked_up += len(rows)
        return replace(one, elements=rows) if len(rows) == len(keys) else None

    def _look_up(self, lookup: Lookup, keys: Sequence[bytes], asked: int, into: Packed) -> bool:
        """Ask for elements, so many at once, and put those that come ``into`` others. False: the kernel answered otherwise.

        A thread asks, and the kernel looks up while it is asked; meanwhile the answers to the question before are received and read.
        """
        asking = Asking(self._socket.send, lookup.question, [keys[at : at + asked] for at in range(0, len(keys), asked)])
        room, sent, found, understood = Datagrams(asked, lookup.room), 0, 0, True
        with asking:
            for some in asking.asked():
                sent += some
                taken = list(self._at_hand(room, sent - found))
                found += sum(len(each.lengths) for each in taken)
                asking.answered(whole=found >= sent and understood)
                for each in taken:
                    try:
                        rows = lookup.rows(each.datagrams())
                    except netlink.MalformedNetlink:  # it was cut off
                        rows = []
                    into.put(rows)
                    understood = understood and len(rows) == len(each.lengths)
        return understood

    def _asked_at_once(self) -> int:
        """Say how many answers the receive buffer holds, which the machine's own root may make bigger: less is asked for more often."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _FORCED_BYTES)
        except PermissionError:
            return _ASKED
        return _ASKED_MOST

    def _at_hand(self, into: Datagrams, most: int) -> Iterator[Taken]:
        """Receive the answers to what was sent: as many as the buffer held."""
        found = 0
        while found < most:
            try:
                taken = into.take(self._socket.fileno(), wait=False)
            except BlockingIOError:
                break
            except OSError as failed:
                if failed.errno != errno.ENOBUFS:  # which says that there were more
                    raise
            else:
                found += len(taken.lengths)
                yield taken

    def _received(self) -> Iterator[bytes]:
        while True:
            yield self._socket.recv(_RECEIVE_BYTES)

    def _received_ahead(self, ahead: Executor) -> Iterator[bytes]:
        """Receive a dump, many datagrams at once: while some are read, the kernel is already asked for the next."""
        if self._datagrams is None:
            self._datagrams = Datagrams(_RECEIVE_COUNT, _DUMP_BYTES)
        receive, descriptor = self._datagrams.receive, self._socket.fileno()
        coming: Future[list[bytes]] | None = ahead.submit(receive, descriptor)
        while coming is not None:
            found = coming.result()
            coming = None if netlink.is_end(found[-1]) else ahead.submit(receive, descriptor)
            yield from found

    def _ask(self, kind: int, family: str = "", payload: bytes = b"", *, what: str, many: bool = True) -> list[bytes]:
        return list(self._answers(kind, family, payload, what=what, received=self._received(), many=many))

    def _answers(
        self, kind: int, family: str, payload: bytes, *, what: str, received: Iterator[bytes], many: bool = True
    ) -> Iterator[bytes]:
        self._sequence += 1
        sequence, flags = self._sequence, netlink.REQUEST | (netlink.DUMP if many else 0)
        number = nfnetlink.FAMILIES[family] if family else 0  # 0: all families
        self._socket.send(nfnetlink.message(nfnetlink.NFTABLES, kind, flags, sequence, number, payload))
        interrupted = False
        for answer in itertools.chain.from_iterable(map(netlink.messages, received)):
            if answer.sequence != sequence:
                continue
            interrupted = interrupted or bool(answer.flags & netlink.DUMP_INTR)
            if answer.type in (netlink.ERROR, netlink.DONE):
                told = netlink.acknowledgement(answer)
                if interrupted or told.errno in (errno.EINTR, errno.ENOENT):
                    raise _Changing  # what was asked for has gone since the question before
                if told.errno:
                    raise KernelRefused(told.errno, what, told.hint)
                return
            yield answer.payload
            if not many:
                return


class _Changing(Exception):
    """The ruleset changed while it was being read."""


def _about(one: Set, payload: bytes) -> int:
    """How many elements a set has, or as many as it was declared for."""
    count = dump.count(payload)
    return one.size if count is None else count


def _with_rules(chain: Chain, rules: list[Rule]) -> Chain:
    return Chain(chain.name, tuple(rules), chain.type, chain.hook, chain.priority, chain.policy, chain.device, chain.comment)


def _unsent(failure: OSError, transaction: bytecode.Transaction, changes: Sequence[Change]) -> KernelRefused:
    return KernelRefused(failure.errno or 0, _summary(changes), f"{len(transaction.datagram)} bytes in one transaction")


def _refusal(transaction: bytecode.Transaction, changes: Sequence[Change], told: netlink.Acknowledgement) -> KernelRefused:
    index = transaction.origin(told.sequence)
    if index is None:
        return KernelRefused(told.errno, _summary(changes), told.hint)
    element = None
    if told.offset:
        element = element_at(changes[index], transaction.parts[told.sequence - transaction.first], told.offset)
    return KernelRefused(told.errno, render_change(changes[index], element), told.hint)


def _summary(changes: Sequence[Change]) -> str:
    more = f" and {len(changes) - 1} more changes" if len(changes) > 1 else ""
    return render_change(changes[0]) + more
