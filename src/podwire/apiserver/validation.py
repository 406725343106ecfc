"""Errors of fields, and the checks that many kinds share: names, labels, annotations, metadata.

Here: what an error is and how it reads; rules for text. Not here: rules of one kind (``kinds/``), types (``schema.py``).
Every check gives all its errors, in the words that users of Kubernetes know.

Source: RFC 1123, RFC 1035, https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

INVALID, REQUIRED, UNSUPPORTED, DUPLICATE = "FieldValueInvalid", "FieldValueRequired", "FieldValueNotSupported", "FieldValueDuplicate"
FORBIDDEN, TOO_LONG, TOO_MANY, NOT_FOUND = "FieldValueForbidden", "FieldValueTooLong", "FieldValueTooMany", "FieldValueNotFound"
INTERNAL, TYPE_INVALID = "InternalError", "FieldValueTypeInvalid"

IMMUTABLE = "field is immutable"
OMITTED: Final = "\0omitted"
"""The value of an error that is about no value."""

_TITLES = {
    INVALID: "Invalid value",
    REQUIRED: "Required value",
    UNSUPPORTED: "Unsupported value",
    DUPLICATE: "Duplicate value",
    FORBIDDEN: "Forbidden",
    TOO_LONG: "Too long",
    TOO_MANY: "Too many",
    NOT_FOUND: "Not found",
    INTERNAL: "Internal error",
    TYPE_INVALID: "Invalid value",
}
_WITHOUT_VALUE = (REQUIRED, FORBIDDEN, TOO_LONG, INTERNAL)


class Path:
    """Where a field is: ``Path("spec") / "ports" @ 0`` is ``spec.ports[0]``; ``%`` takes the key of a map.

    The text is put together when an error needs it: most paths never do.
    """

    __slots__ = ("_form", "_parent", "_part")

    def __init__(self, part: str | int = "", parent: Path | None = None, form: str = "{}") -> None:
        self._part = part
        self._parent = parent
        self._form = form

    def __truediv__(self, name: str) -> Path:
        return Path(name, self, ".{}")

    def __matmul__(self, index: int) -> Path:
        return Path(index, self, "[{}]")

    def __mod__(self, key: str) -> Path:
        return Path(key, self, "[{}]")

    @property
    def text(self) -> str:
        before = "" if self._parent is None else self._parent.text
        return (before + self._form.format(self._part)).removeprefix(".")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with one field. ``reason`` is the reason of a StatusCause."""

    reason: str
    field: str
    value: Any = None
    detail: str = ""

    @property
    def message(self) -> str:
        """The text without the field, as a StatusCause has it: ``Invalid value: 99999: must be between 1 and 65535, inclusive``."""
        title = _TITLES[self.reason]
        if self.reason not in _WITHOUT_VALUE and self.value != OMITTED and not (self.reason == TOO_MANY and self.value is None):
            title = f"{title}: {_printed(self.value)}"
        return f"{title}: {self.detail}" if self.detail else title

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def _printed(value: Any) -> str:
    if isinstance(value, str):
        return orjson.dumps(value).decode()
    if value is None:
        return "null"
    return orjson.dumps(value).decode()


def invalid(path: Path, value: Any, detail: str) -> FieldError:
    return FieldError(INVALID, path.text, value, detail)


def required(path: Path, detail: str = "") -> FieldError:
    return FieldError(REQUIRED, path.text, None, detail)


def forbidden(path: Path, detail: str) -> FieldError:
    return FieldError(FORBIDDEN, path.text, None, detail)


def duplicate(path: Path, value: Any) -> FieldError:
    return FieldError(DUPLICATE, path.text, value)


def unsupported(path: Path, value: Any, allowed: Iterable[str]) -> FieldError:
    return FieldError(UNSUPPORTED, path.text, value, "supported values: " + ", ".join(f'"{one}"' for one in sorted(allowed)))


def too_long(path: Path, limit: int) -> FieldError:
    return FieldError(TOO_LONG, path.text, None, f"may not be more than {limit} bytes")


def too_many(path: Path, limit: int) -> FieldError:
    return FieldError(TOO_MANY, path.text, None, f"must have at most {limit} items")


def not_found(path: Path, value: Any) -> FieldError:
    return FieldError(NOT_FOUND, path.text, value)


def internal(path: Path, detail: str) -> FieldError:
    """What the server cannot do though nothing is wrong with the request: a pool is empty."""
    return FieldError(INTERNAL, path.text, None, detail)


def summary(errors: Sequence[FieldError]) -> str:
    """Print errors as the message of a Status carries them: one alone, several in brackets, each once."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"


class Remembered:
    """The latest values that were found right: what was right once is right again.

    Pods of one template have equal specs; looking closely at one of them is enough.
    """

    def __init__(self, limit: int = 512) -> None:
        self._limit = limit
        self._values: dict[Hashable, None] = {}

    def __contains__(self, value: Hashable) -> bool:
        return value in self._values

    def add(self, value: Hashable) -> None:
        if len(self._values) >= self._limit:
            del self._values[next(iter(self._values))]
        self._values[value] = None


# Text ------------------------------------------------------------------------------------------------------------------

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = _LABEL + "(\\." + _LABEL + ")*"
_LABEL_1035 = "[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE = "(" + _QUALIFIED + ")?"
_DATA_KEY = "[-._a-zA-Z0-9]+"
_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_qualified = re.compile(_QUALIFIED).fullmatch
_is_label_value = re.compile(_LABEL_VALUE).fullmatch
_is_data_key = re.compile(_DATA_KEY).fullmatch


def _regex_error(what: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{one}', " for one in examples)
    return f"{what} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character"
)
_QUALIFIED_TEXT = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"


def _at_most(limit: int) -> str:
    return f"must be no more than {limit} characters"


def _stem(name: str, prefix: bool) -> str:
    """A prefix for generated names may end in '-': what follows makes it whole."""
    return name[:-1] + "a" if prefix and name.endswith("-") else name


def dns_label(name: str, prefix: bool = False) -> list[str]:
    """Give what keeps a name from being an RFC 1123 label."""
    name = _stem(name, prefix)
    errors = [] if len(name) <= 63 else [_at_most(63)]
    if not _is_label(name):
        errors.append(_regex_error(_LABEL_TEXT, _LABEL, "my-name", "123-abc"))
    return errors


def dns_subdomain(name: str, prefix: bool = False) -> list[str]:
    """Give what keeps a name from being an RFC 1123 subdomain."""
    name = _stem(name, prefix)
    errors = [] if len(name) <= 253 else [_at_most(253)]
    if not _is_subdomain(name):
        errors.append(_regex_error(_SUBDOMAIN_TEXT, _SUBDOMAIN, "example.com"))
    return errors


def dns_1035_label(name: str, prefix: bool = False) -> list[str]:
    """Give what keeps a name from being an RFC 1035 label."""
    name = _stem(name, prefix)
    errors = [] if len(name) <= 63 else [_at_most(63)]
    if not _is_label_1035(name):
        errors.append(_regex_error(_LABEL_1035_TEXT, _LABEL_1035, "my-name", "abc-123"))
    return errors


def path_segment(name: str, prefix: bool = False) -> list[str]:
    """Give what keeps a name out of a URL path: the only rule for names of RBAC objects and the like."""
    if name in (".", "..") and not prefix:
        return [f"may not be '{name}'"]
    return [f"may not contain '{sign}'" for sign in "/%" if sign in name]


_REMEMBERED = 512  # letters: no key that is right has more


def qualified_name(name: str) -> list[str]:
    """Give what keeps a text from being the key of a label, ``prefix/name`` or ``name``."""
    return list(_qualified(name) if len(name) <= _REMEMBERED else _qualified.__wrapped__(name))


@functools.lru_cache(maxsize=4096)  # keys are few and come again and again
def _qualified(name: str) -> tuple[str, ...]:
    errors: list[str] = []
    parts = name.split("/")
    if len(parts) == 2:
        prefix, name = parts
        if not prefix:
            errors.append("prefix part must be non-empty")
        else:
            errors += ["prefix part " + error for error in dns_subdomain(prefix)]
    elif len(parts) > 2:
        shown = _regex_error("a qualified name " + _QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc")
        return (shown + " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",)
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > 63:
        errors.append("name part " + _at_most(63))
    if not _is_qualified(name):
        errors.append("name part " + _regex_error(_QUALIFIED_TEXT, _QUALIFIED, "MyName", "my.name", "123-abc"))
    return tuple(errors)


def label_value(value: str) -> list[str]:
    """Give what keeps a text from being the value of a label."""
    errors = [] if len(value) <= 63 else [_at_most(63)]
    if not _is_label_value(value):
        text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
        text += "and must start and end with an alphanumeric character"
        errors.append(_regex_error(text, _LABEL_VALUE, "MyValue", "my_value", "12345"))
    return errors


def data_key(key: str) -> list[str]:
    """Give what keeps a text from being a key of a ConfigMap or Secret."""
    errors = [] if len(key) <= 253 else [_at_most(253)]
    if not _is_data_key(key):
        errors.append(
            _regex_error(
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.'", _DATA_KEY, "key.name", "KEY_NAME", "key-name"
            )
        )
    elif key == ".":
        errors.append("must not be '.'")
    elif key == "..":
        errors.append("must not be '..'")
    elif key.startswith(".."):
        errors.append("must not start with '..'")
    return errors


# Labels, annotations, metadata -----------------------------------------------------------------------------------------


def label_errors(labels: Mapping[str, str], path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in labels.items():
        errors += [invalid(path, key, text) for text in qualified_name(key)]
        errors += [invalid(path, value, text) for text in label_value(value)]
    return errors


def annotation_errors(annotations: Mapping[str, str], path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    total = 0
    for key, value in annotations.items():
        errors += [invalid(path, key, text) for text in qualified_name(key.lower())]
        total += len(key) + len(value)
    if total > 256 * 1024:
        errors.append(too_long(path, 256 * 1024))
    return errors


def metadata_errors(
    metadata: dict[str, Any], namespaced: bool, name_errors: Callable[[str, bool], list[str]], path: Path
) -> list[FieldError]:
    """Give the errors of an object's metadata, of any kind."""
    errors: list[FieldError] = []
    prefix, name = metadata.get("generateName", ""), metadata.get("name", "")
    if prefix:
        errors += [invalid(path / "generateName", prefix, text) for text in name_errors(prefix, True)]
    if not name:
        errors.append(required(path / "name", "name or generateName is required"))
    else:
        errors += [invalid(path / "name", name, text) for text in name_errors(name, False)]
    namespace = metadata.get("namespace", "")
    if namespaced:
        if not namespace:
            errors.append(required(path / "namespace"))
        else:
            errors += [invalid(path / "namespace", namespace, text) for text in dns_label(namespace)]
    elif namespace:
        errors.append(forbidden(path / "namespace", "not allowed on this type"))
    return errors + _common_errors(metadata, path)


_COMMON = ("labels", "annotations", "ownerReferences", "finalizers")
_REMEMBERED_SIZE = 4096  # bytes
_right = Remembered()


def _common_errors(metadata: dict[str, Any], path: Path) -> list[FieldError]:
    """Give the errors of what does not name an object: objects of one template have it alike."""
    text = orjson.dumps([metadata.get(key) for key in _COMMON])
    if text in _right:
        return []
    errors = _found_errors(metadata, path)
    if not errors and len(text) <= _REMEMBERED_SIZE:
        _right.add(text)
    return errors


def _found_errors(metadata: dict[str, Any], path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if labels := metadata.get("labels"):
        errors += label_errors(labels, path / "labels")
    if annotations := metadata.get("annotations"):
        errors += annotation_errors(annotations, path / "annotations")
    controllers = []
    for index, owner in enumerate(metadata.get("ownerReferences", ())):
        errors += _owner_errors(owner, path / "ownerReferences" @ index)
        if owner.get("controller"):
            controllers.append(owner)
    if len(controllers) > 1:
        text = (
            'Only one reference can have Controller set to true. Found "true" in references for {0[kind]}/{0[name]} and {1[kind]}/{1[name]}'
        )
        errors.append(invalid(path / "ownerReferences", metadata["ownerReferences"], text.format(*controllers)))
    for finalizer in metadata.get("finalizers", ()):
        errors += [invalid(path / "finalizers", finalizer, text) for text in qualified_name(finalizer)]
    return errors


def _owner_errors(owner: dict[str, Any], path: Path) -> list[FieldError]:
    errors = [
        invalid(path / key, "", "must not be empty") if key != "apiVersion" else invalid(path / key, "", "version must not be empty")
        for key in ("apiVersion", "kind", "name", "uid")
        if not owner.get(key)
    ]
    if owner.get("kind") == "Event" and owner.get("apiVersion") == "v1":
        errors.append(invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"))
    return errors


def metadata_update_errors(metadata: dict[str, Any], old: dict[str, Any], path: Path) -> list[FieldError]:
    """Give the errors of changed metadata: what names an object never changes."""
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        fresh = sorted(set(metadata.get("finalizers", ())) - set(old.get("finalizers", ())))
        if fresh:
            shown = "{" + ", ".join(f'"{one}"' for one in fresh) + "}"
            errors.append(
                forbidden(
                    path / "finalizers",
                    f"no new finalizers can be added if the object is being deleted, found new finalizers []string{shown}",
                )
            )
    fixed = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
    errors += [invalid(path / key, metadata.get(key), IMMUTABLE) for key in fixed if metadata.get(key) != old.get(key)]
    for key in ("labels", "annotations", "ownerReferences", "finalizers"):
        if metadata.get(key) != old.get(key):
            return errors + _common_errors(metadata, path)
    return errors
