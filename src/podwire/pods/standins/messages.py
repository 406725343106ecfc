"""What the node's agent and the stand-ins' process say to each other. Pure: values and their bytes.

A SOCK_SEQPACKET socket carries one JSON message a packet; the descriptor of a Pod's network namespace travels beside a
``play``. Every request has a number, and its reply carries the same one. Requests of a connection are done in order.

    play {role, ports} + descriptor     listen on exactly these ports in that namespace, for that Pod; again to change them
    drain {uid}                         every answer from now on ends its connection; how many connections are open
    stop {uid}                          close everything of that Pod
    list {after}                        what is playing, at most PAGE Pods whose uid sorts after the given one

The namespace's descriptor is kept only for a Pod whose players call others (agnhost's ``/dial``): sockets hold a namespace by
themselves, and thousands of Pods cost only their sockets.
"""

from __future__ import annotations

from typing import Literal

import msgspec

PAGE = 500
"""Pods in one answer to ``list``: such a packet stays far below the socket's buffer of an ordinary user (212,992 bytes)."""
MAXIMUM = 200_000
"""Bytes of a packet."""


class Malformed(ValueError):
    """A packet that is no message."""


class Port(msgspec.Struct, frozen=True, order=True, array_like=True, omit_defaults=True):
    """A port that a stand-in listens on, and the container that it stands in for there (empty where none declares the port)."""

    protocol: str
    number: int
    container: str = ""

    def __str__(self) -> str:
        return f"{self.protocol}/{self.number}"


class Character(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a container is played: its personality (``""``: the plain one), its program's words, the variables that those look at, its
    image's tag, and how often it was started again: each time it has forgotten what it knew.
    """

    container: str
    kind: str = ""
    tag: str = ""
    run: int = 0
    words: tuple[str, ...] = ()
    environment: dict[str, str] = {}


class Role(msgspec.Struct, frozen=True, omit_defaults=True):
    """The Pod that is played: what its answers say about it, how each container that is not plain is played, what its annotations tell
    (``directions.accepted``), the files by which names are resolved in it, for the players that call others, and where containers log
    to (``logs.file``), by how often each was started again.
    """

    uid: str
    name: str = ""
    namespace: str = ""
    ip: str = ""
    node: str = ""
    zone: str = ""
    service_account: str = ""
    cluster: str = ""
    hostname: str = ""
    characters: tuple[Character, ...] = ()
    told: dict[str, str] = {}
    resolv_conf: str = ""
    hosts: str = ""
    logs: str = ""
    runs: dict[str, int] = {}


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    id: int
    do: Literal["play", "drain", "stop", "list"]
    role: Role | None = None
    ports: tuple[Port, ...] = ()
    uid: str = ""
    after: str = ""


class Ended(msgspec.Struct, frozen=True):
    """A container that ended because it was asked to, over the network: agnhost's ``/exit``."""

    uid: str
    container: str
    exit_code: int


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """``failures``: port as ``TCP/80`` to why it is not listened on. ``error``: why the request was not done at all.

    One that nobody asked for has the number 0 and says ``ended``: a container whose program has ended by itself.
    """

    id: int
    failures: dict[str, str] = {}
    playing: dict[str, tuple[Port, ...]] = {}
    more: bool = False
    open: int = 0
    error: str = ""
    ended: Ended | None = None


_requests = msgspec.json.Decoder(Request)
_replies = msgspec.json.Decoder(Reply)


def encode(message: Request | Reply) -> bytes:
    return msgspec.json.encode(message)


def decode_request(packet: bytes) -> Request:
    """Raises Malformed."""
    try:
        return _requests.decode(packet)
    except msgspec.DecodeError as error:
        raise Malformed(str(error)) from error


def decode_reply(packet: bytes) -> Reply:
    """Raises Malformed."""
    try:
        return _replies.decode(packet)
    except msgspec.DecodeError as error:
        raise Malformed(str(error)) from error
