"""Elements that are asked for by their keys: the bytes of the question, and the rows out of the answers.

What belongs here: messages of GETSETELEM that name keys. What must not: the socket, and how many keys to ask for at once
(podwire.linux.nftables).

How it works: the kernel looks up one key after the other and answers each with a message of its own, until one is not there. So whoever
knows the keys gets a big set in a time that grows with it, where a list is walked from its beginning for every datagram. The answers are
alike up to the key of the element, but for their lengths: what stands before it is written once for each length and compared, and the
rest of the datagram is the row. An answer that looks otherwise is read as any message is.

Source: nf_tables_getsetelem in the Linux kernel's net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from podwire.nft.model import Set, TableName
from podwire.nft.rows import form, split
from podwire.wire import netlink, nfnetlink
from podwire.wire.netlink import string
from podwire.wire.nfnetlink import NFTA as A

Keys: TypeAlias = Callable[[Mapping[str, Set]], Sequence[bytes] | None]
"""Gives the keys of a set, each once, from the other sets of its table by name. None: they do not tell."""
Keyed: TypeAlias = Mapping[str, Keys]
"""By the name of a set what knows its keys."""
NONE_KEYED: Final[Keyed] = MappingProxyType({})

_ASK: Final = nfnetlink.NFTABLES << 8 | nfnetlink.GETSETELEM
_TOLD: Final = nfnetlink.NFTABLES << 8 | nfnetlink.NEWSETELEM
_LIST: Final = netlink.ATTRIBUTE.pack
_BEYOND: Final = 272  # a comment as long as can be, and what pads it


class Lookup:
    """One set whose elements are asked for by key, in several questions that have the same number."""

    def __init__(self, table: TableName, one: Set, sequence: int) -> None:
        self._form, self._sequence = form(one), sequence
        named = string(A.ELEMENTS_TABLE, table[1]) + string(A.ELEMENTS_SET, one.name)
        self._about = nfnetlink.generic(nfnetlink.FAMILIES[table[0]]) + named
        self._named = named
        self._row_at = netlink.HEADER.size + len(self._about) + 4
        self._heads: dict[int, bytes] = {}

    @property
    def room(self) -> int:
        """The bytes of the longest answer, if elements have no more than key, value and comment."""
        return self._row_at + self._form.value_end + _BEYOND

    def question(self, keys: Sequence[bytes]) -> bytes:
        """Ask for elements, no more than 3,000 keys of 8 bytes at once: an attribute's length has sixteen bits."""
        asked = self._form.naming(keys)
        return netlink.message(_ASK, netlink.REQUEST, self._sequence, self._about + _LIST(4 + len(asked), A.ELEMENTS_LIST) + asked)

    def rows(self, answers: Sequence[bytes]) -> list[bytes]:
        """Take the rows out of datagrams. Raises Unreadable, MalformedNetlink."""
        heads, at = self._heads, self._row_at
        for size in {*map(len, answers)} - heads.keys():
            heads[size] = self._head(size, answers[0])
        found = [answer[at:] for answer in answers if answer.startswith(heads[len(answer)])]
        return found if len(found) == len(answers) else [row for answer in answers for row in self._read(answer)]

    def _head(self, size: int, like: bytes) -> bytes:
        """Write an answer of so many bytes as far as the key. To whom it goes, and after which transaction, is as in another."""
        header = netlink.HEADER.pack(size, _TOLD, 0, self._sequence, 0)[:12] + like[12:20]
        row = max(size - self._row_at, 0)
        return header + self._named + _LIST(4 + row, A.ELEMENTS_LIST) + _LIST(row, A.LIST_ELEM) + self._form.key_head

    def _read(self, answer: bytes) -> Iterator[bytes]:
        for told in netlink.messages(answer):
            if told.sequence != self._sequence:
                continue
            if told.type == _TOLD:
                yield from self._form.regular(split(netlink.attributes(told.payload, 4).get(A.ELEMENTS_LIST, b"")))
