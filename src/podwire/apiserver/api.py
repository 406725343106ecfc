"""What every handler works with: the store, the kinds, the allocator of addresses, the clock.

Here: the parts and the few steps that all verbs share. Not here: any verb, HTTP.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from podwire.apiserver import keys
from podwire.apiserver.admission.chain import Admission
from podwire.apiserver.answers import Stream, Tree, decode, encode
from podwire.apiserver.auth.authorizer import Authorizer
from podwire.apiserver.auth.jwt import Key
from podwire.apiserver.auth.tokens import Tokens
from podwire.apiserver.calls import Calls
from podwire.apiserver.kind import Kind
from podwire.apiserver.registry import REGISTRY, Registry
from podwire.apiserver.selectors import facts_of_tree
from podwire.apiserver.validation import FieldError
from podwire.store import QUEUE, Record, Store, Transaction

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_NAME_LENGTH = 63


class Grant(Protocol):
    """Addresses and ports set aside for one write. Exactly one of ``commit`` and ``abandon`` follows."""

    @property
    def errors(self) -> list[FieldError]: ...
    def commit(self) -> None: ...
    def abandon(self) -> None: ...


class Allocating(Protocol):
    """What is asked of the allocator."""

    def begin(self, kind: Kind, tree: Tree, old: Tree | None) -> Grant: ...
    def release(self, kind: Kind, tree: Tree) -> None: ...


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Api:
    """``authorizer``, ``tokens`` and ``admission`` follow the store; ``token_key`` signs tokens. ``streams`` are the open watches;
    ``watch_queue`` is how many changes one may be behind, ``bookmark_s`` how often one that asks for it is told how far it has come.
    """

    store: Store
    allocator: Allocating
    registry: Registry = REGISTRY
    clock: Callable[[], datetime] = _now
    token_key: Key = field(default_factory=Key.fresh)
    streams: set[Stream] = field(default_factory=set)
    ending: bool = False
    watch_queue: int = QUEUE
    bookmark_s: float = 60.0
    _second: tuple[int, str] = (0, "")
    authorizer: Authorizer = field(init=False)
    tokens: Tokens = field(init=False)
    admission: Admission = field(init=False)
    calls: Calls = field(init=False)

    def __post_init__(self) -> None:
        self.authorizer = Authorizer(self.store)
        self.calls = Calls(self.store)
        self.admission = Admission(self.store, self.registry, put, self.calls, self.authorizer)
        self.tokens = Tokens(self.store, self.token_key, lambda: self.clock().timestamp())

    def timestamp(self, later_s: int = 0) -> str:
        """Give the present time, or one some seconds later, as objects carry it."""
        moment = self.clock()
        second = int(moment.timestamp()) + later_s
        if second != self._second[0]:
            self._second = (second, (moment + timedelta(seconds=later_s)).strftime("%Y-%m-%dT%H:%M:%SZ"))
        return self._second[1]

    def close_streams(self) -> None:
        """End all watches, so that their clients ask another server or ask again. The server is ending, and says so where it is asked."""
        self.ending = True
        for stream in list(self.streams):
            if stream.stop is not None:
                stream.stop()


def fresh_uid() -> str:
    """Make a UUID of version 4. It has to be unique, not unguessable, and the system's own random bytes cost more than all else here."""
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"


def generated_name(prefix: str) -> str:
    """Make a name of a prefix and five random letters, those without vowels so that they spell nothing."""
    return prefix[: _NAME_LENGTH - 5] + "".join(random.choices(_NAME_LETTERS, k=5))


def put(transaction: Transaction, kind: Kind, tree: Tree, fields: Mapping[str, str] | None = None) -> bytes:
    """Take an object into a transaction: it gets the transaction's revision. Its companions follow. Returns its bytes.

    ``fields``: what selectors ask of it, where that is known.
    """
    metadata = tree["metadata"]
    metadata["resourceVersion"] = str(transaction.revision)
    value = encode(tree)
    key = keys.key(kind, metadata.get("namespace", ""), metadata["name"])
    before = transaction.latest(key) if kind.companions is not None else None
    transaction.put(key, value, facts_of_tree(kind, tree, fields))
    follow(transaction, kind, None if before is None else decode(before.value), tree)
    return value


def remove(transaction: Transaction, kind: Kind, tree: Tree) -> bytes:
    """Take an object's removal into a transaction, and its companions'. Returns its last bytes, which carry the transaction's revision."""
    metadata = tree["metadata"]
    metadata["resourceVersion"] = str(transaction.revision)
    value = encode(tree)
    transaction.delete(keys.key(kind, metadata.get("namespace", ""), metadata["name"]), value, facts_of_tree(kind, tree))
    follow(transaction, kind, tree, None)
    return value


def follow(transaction: Transaction, kind: Kind, before: Tree | None, after: Tree | None) -> None:
    """Take into a transaction what goes with an object: companions that are missing are made, those that it no longer has go."""
    if kind.companions is None:
        return
    wanted = {companion["metadata"]["name"]: (row, companion) for row, companion in (kind.companions(after) if after is not None else ())}
    for row, companion in kind.companions(before) if before is not None else ():
        name = companion["metadata"]["name"]
        found = transaction.latest(keys.key(row, "", name))
        if name not in wanted and found is not None and _same(decode(found.value), companion):
            remove(transaction, row, decode(found.value))
    for name, (row, companion) in wanted.items():
        found = transaction.latest(keys.key(row, "", name))
        if found is not None and _same(decode(found.value), companion):
            continue
        companion["metadata"] |= {"uid": fresh_uid(), "creationTimestamp": _now().strftime("%Y-%m-%dT%H:%M:%SZ")}
        row.for_create(companion)
        put(transaction, row, companion)


def _same(found: Tree, companion: Tree) -> bool:
    return bool(found.get("spec") == companion["spec"])


def latest_tree(api: Api, kind: Kind, namespace: str, name: str) -> Tree | None:
    """Give an object as the next write must find it."""
    record: Record | None = api.store.latest(keys.key(kind, namespace, name))
    return None if record is None else decode(record.value)
