"""New Pods of one template: what was found out about the first is not found out again.

A workload's Pods have one spec. It is remembered by its bytes as they were sent, with all that becomes of it: its defaults, its first
status, whose its fields are, what selectors ask of it, its bytes as they are stored. A Pod whose spec is remembered costs a look-up where
others are filled, checked and written out. Its metadata are its own and go the way of all.

Only what follows from the spec alone is remembered: a Pod about whose spec somebody else has a say (a webhook, a policy, a range, the class
of its priority) is never taken from here (``Admission.variant``), nor one whose spec had to be brought into shape.

Here: what is remembered. Not here: the steps of a write (``writing.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import orjson

from podwire.apiserver import merge_types
from podwire.apiserver.answers import Tree, decode, encode
from podwire.apiserver.apply import fields_of
from podwire.apiserver.kinds.core import POD
from podwire.apiserver.managed_fields import Fields, Written
from podwire.apiserver.merge_types import UNOWNED_METADATA
from podwire.apiserver.ownership import Owned
from podwire.apiserver.selectors import facts_of_tree

_LIMIT = 256  # templates
_LARGEST = 32 * 1024  # bytes of a spec
_METADATA = 16  # sets of labels and the like that Pods of one template have


class Template:
    """What becomes of a spec. ``spec`` and ``status`` are as they are stored; nobody changes them."""

    __slots__ = ("_fields", "_owned", "facts", "spec", "status")

    def __init__(self, tree: Tree, fields: Fields) -> None:
        text = encode(tree["spec"])
        self.spec = Written(decode(text), text)
        text = encode(tree["status"])
        self.status = Written(decode(text), text)
        self.facts: Mapping[str, str] = facts_of_tree(POD, tree).fields
        self._fields = fields
        self._owned: dict[bytes, Written] = {}

    def fields(self, metadata: Tree) -> Fields:
        """Give the fields that belong to whoever makes a Pod with these metadata."""
        owned = {name: value for name, value in metadata.items() if name not in UNOWNED_METADATA}
        key = orjson.dumps(owned)
        found = self._owned.get(key)
        if found is None:
            own = fields_of(merge_types.of_kind(POD), {"metadata": owned}, added=True)
            fields = {**own, "f:spec": self._fields}
            found = Written(fields, orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))
            if len(key) <= _LARGEST:
                if len(self._owned) >= _METADATA:
                    del self._owned[next(iter(self._owned))]
                self._owned[key] = found
        return found


class Key(NamedTuple):
    """By what a Pod's spec is remembered: its bytes as they were sent, and what else settles how it is stored."""

    spec: bytes
    variant: bytes

    def is_unchanged(self, tree: Tree) -> bool:
        """Say whether the spec is as it was sent, after all that does not fit was dropped."""
        return orjson.dumps(tree.get("spec")) == self.spec


_known: dict[Key, Template] = {}


def key(tree: Tree, variant: bytes) -> Key | None:
    """Give what a Pod's spec is remembered by; None for one that is not remembered."""
    text = orjson.dumps(tree["spec"])
    return Key(text, variant) if len(text) <= _LARGEST else None


def find(sent: Key) -> Template | None:
    """Give what became of a spec, if that is remembered."""
    return _known.get(sent)


def remember(sent: Key, tree: Tree, owned: Owned) -> None:
    """Remember what became of a spec that was found right."""
    fields = owned.mine["fieldsV1"].get("f:spec") if owned.mine is not None and len(owned.entries) == 1 else None
    if fields is None:
        return
    if len(_known) >= _LIMIT:
        del _known[next(iter(_known))]
    _known[sent] = Template(tree, fields)
