"""What is asked of the kernel: a verb and a value.

A request is one thing to whoever asks; on the wire it may be several messages (a bridge port is made, then given its flags,
then set up), each of which the kernel acknowledges. The verbs are those of ``ip``: ``add`` fails if the object exists,
``replace`` does not, ``change`` alters one that exists, ``delete`` fails if there is none unless that is said to be fine. ``show``
(of links alone: ``link.show``) asks how it is, in its turn among the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from podwire.wire import netlink

Verb = Literal["add", "replace", "change", "delete", "show"]

UNSPECIFIED: Final = 0
INET: Final = 2
BRIDGE: Final = 7
INET6: Final = 10

#: The flags that a verb puts on a message that makes or alters an object.
FLAGS: Final[dict[Verb, int]] = {
    "add": netlink.CREATE | netlink.EXCL,
    "replace": netlink.CREATE | netlink.REPLACE,
    "change": netlink.REPLACE,
    "delete": 0,
}


class Part(NamedTuple):
    """One message of a request, without header: its type, flags (beside REQUEST and ACK), and payload."""

    type: int
    flags: int
    payload: bytes


class Value(Protocol):
    """A kind of object."""

    def parts(self, verb: Verb, index: Callable[[str], int]) -> Iterator[Part]:
        """The messages that do this to the object. ``index`` raises LookupError for a link that does not exist."""

    def printed(self, verb: Verb) -> str:
        """The ``ip`` command that would do the same."""


@dataclass(frozen=True, slots=True)
class Request:
    """A verb and the value that it is about. ``missing_ok``: a deletion is done also if there was nothing to delete."""

    verb: Verb
    value: Value
    missing_ok: bool = False

    def parts(self, index: Callable[[str], int]) -> Iterator[Part]:
        """The messages, in order."""
        return self.value.parts(self.verb, index)

    def __str__(self) -> str:
        return self.value.printed(self.verb)


def add(value: Value) -> Request:
    """Make it; refused (EEXIST) if it exists."""
    return Request("add", value)


def replace(value: Value) -> Request:
    """Make it, or alter the one that exists."""
    return Request("replace", value)


def change(value: Value) -> Request:
    """Alter the one that exists; only the fields that are set are touched."""
    return Request("change", value)


def delete(value: Value, *, missing_ok: bool = False) -> Request:
    """Remove it; refused (ENODEV, ENOENT, ESRCH, EADDRNOTAVAIL) if it is not there, unless ``missing_ok``."""
    return Request("delete", value, missing_ok)
