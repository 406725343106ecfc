"""Label and field selectors: which objects of a list or a watch are meant.

What a selector looks at (labels, and the few fields of a kind that may be asked for) is kept beside each record, worked out when the
object is written or when it is first asked for, so that choosing among ten thousand objects decodes none.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors and .../field-selectors/
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from podwire.apiserver import keys, status
from podwire.apiserver.answers import Tree, decode
from podwire.apiserver.kind import Kind
from podwire.apiserver.validation import label_value, qualified_name
from podwire.store import Record

Labels = Mapping[str, str]
_NO_LABELS: Labels = {}


class Facts:
    """What selectors may ask of one object, apart from its name and namespace, which its key tells."""

    __slots__ = ("fields", "labels")

    def __init__(self, labels: Labels, fields: Mapping[str, str]) -> None:
        self.labels = labels
        self.fields = fields


def facts_of_tree(kind: Kind, tree: Tree, fields: Mapping[str, str] | None = None) -> Facts:
    """Work out the facts of an object that is about to be stored. ``fields``: those of its fields, where they are known."""
    labels = tree["metadata"].get("labels")
    if fields is None:
        fields = {name: read(tree) for name, read in kind.selectable_fields.items()} if kind.selectable_fields else _NO_LABELS
    return Facts(dict(labels) if labels else _NO_LABELS, fields)


def facts(kind: Kind, record: Record) -> Facts:
    """Give a record's facts."""
    known = record.facts
    if not isinstance(known, Facts):
        known = record.facts = facts_of_tree(kind, decode(record.value))
    return known


# Parsing -----------------------------------------------------------------------------------------------------------------

_TERM = re.compile(
    r"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>[^\s,=!<>()]+)
      | (?P<key>[^\s,=!<>()]+)(?:
            \s*(?P<operator>==|=|!=|>|<)\s*(?P<value>[^\s,=!<>()]*)
          | \s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)
        )?
    )\s*""",
    re.VERBOSE,
)

_BLANK = re.compile(r"\s*\Z")
_REMEMBERED = 1024  # letters of a selector that is worth remembering
_MOST_TERMS = 1000  # of one selector: each is put to each object of a list

Test = Callable[[Labels], bool]


def label_test(text: str) -> Test | None:
    """Read a label selector; None when it selects everything. Raises Failure (400)."""
    return _label_test(text) if len(text) <= _REMEMBERED else _label_test.__wrapped__(text)


@functools.lru_cache(maxsize=1024)
def _label_test(text: str) -> Test | None:
    tests: list[Test] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None or not match.group().strip():
            raise _unparsable(text, position)
        tests.append(_term(match))
        _check_number(len(tests))
        position = match.end()
        if position < len(text):
            if text[position] != ",":
                raise _unparsable(text, position)
            position += 1
            if _BLANK.match(text, position):
                raise _unparsable(text, position)
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    every = tuple(tests)
    return lambda labels: all(test(labels) for test in every)


def _check_number(terms: int) -> None:
    if terms > _MOST_TERMS:
        raise status.bad_request(f"unable to parse requirement: a selector has at most {_MOST_TERMS} requirements")


def _unparsable(text: str, position: int) -> status.Failure:
    found = text[position:].strip() or "end of string"
    return status.bad_request(f"unable to parse requirement: found '{found}', expected: identifier")


def _term(match: re.Match[str]) -> Test:
    if match["absent"]:
        key = _key(match["absent_key"])
        return lambda labels: key not in labels
    key = _key(match["key"])
    if match["set"]:
        wanted = frozenset(_value(key, part.strip()) for part in match["values"].split(","))
        if match["set"] == "in":
            return lambda labels: labels.get(key) in wanted
        return lambda labels: labels.get(key) not in wanted
    operator = match["operator"]
    if operator is None:
        return lambda labels: key in labels
    if operator in ("<", ">"):
        return _comparison(key, operator, match["value"])
    value = _value(key, match["value"])
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    return lambda labels: labels.get(key) == value


def _key(key: str) -> str:
    if errors := qualified_name(key):
        raise status.bad_request(f'unable to parse requirement: <nil>: Invalid value: "{key}": {"; ".join(errors)}')
    return key


def _value(key: str, value: str) -> str:
    if errors := label_value(value):
        raise status.bad_request(f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}": {"; ".join(errors)}')
    return value


def _comparison(key: str, operator: str, text: str) -> Test:
    try:
        limit = int(text)
    except ValueError:
        message = (
            f"unable to parse requirement: values[0]: Invalid value: \"{text}\": for 'Gt', 'Lt' operators, the value must be an integer"
        )
        raise status.bad_request(message) from None

    def test(labels: Labels) -> bool:
        try:
            value = int(labels[key])
        except (KeyError, ValueError):
            return False
        return value > limit if operator == ">" else value < limit

    return test


def field_terms(text: str) -> tuple[tuple[str, bool, str], ...]:
    """Read a field selector as (field, equal or not, value). Raises Failure (400)."""
    return _field_terms(text) if len(text) <= _REMEMBERED else _field_terms.__wrapped__(text)


@functools.lru_cache(maxsize=1024)
def _field_terms(text: str) -> tuple[tuple[str, bool, str], ...]:
    terms = []
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        match = re.fullmatch(r"\s*([^=!\s]+)\s*(==|=|!=)\s*(.*?)\s*", part)
        if match is None:
            raise status.bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        value = re.sub(r"\\([\\,=])", r"\1", match[3])
        terms.append((match[1], match[2] != "!=", value))
        _check_number(len(terms))
    return tuple(terms)


# Selecting ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """The objects of a kind that a request means. Falsy when it means all of them."""

    kind: Kind
    labels: Test | None
    fields: tuple[tuple[str, bool, str], ...]

    def __bool__(self) -> bool:
        return self.labels is not None or bool(self.fields)

    def __call__(self, record: Record) -> bool:
        """Say whether an object is meant."""
        known = facts(self.kind, record)
        if self.labels is not None and not self.labels(known.labels):
            return False
        for name, equal, value in self.fields:
            found = known.fields.get(name)
            if found is None:
                namespace, own = keys.names(record.key)
                found = own if name == "metadata.name" else namespace
            if (found == value) is not equal:
                return False
        return True

    @property
    def only_name(self) -> str:
        """The one name that the fields allow, ``""`` when they allow several."""
        return next((value for name, equal, value in self.fields if equal and name == "metadata.name"), "")


def selection(kind: Kind, labels: str, fields: str) -> Selection:
    """Read the selectors of a request. Raises Failure (400)."""
    terms = field_terms(fields) if fields else ()
    for name, _, _ in terms:
        if name != "metadata.name" and name not in kind.selectable_fields and not (name == "metadata.namespace" and kind.namespaced):
            raise status.bad_request(f"field label not supported: {name}")
    return Selection(kind, label_test(labels) if labels else None, terms)
