"""What makes the source of a Pod's volume right.

Source: https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/volume/ and the API's own messages
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import FieldError, Path, forbidden, invalid, required, unsupported

_MOST_MODE = 0o777
_MODE_TEXT = "must be a number between 0 and 0777 (octal), both inclusive"
_SHORTEST_TOKEN_S = 600
_LONGEST_TOKEN_S = 1 << 32
_HOST_PATHS = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")


def source_errors(volume: Tree, path: Path) -> list[FieldError]:
    """Give the errors of a volume's sources. Kinds of sources without a rule here have none."""
    return [error for key, source in volume.items() if key in _RULES for error in _RULES[key](source, path / key)]


def relative_path_errors(text: str, path: Path) -> list[FieldError]:
    """Check a path below some folder."""
    errors = [invalid(path, text, "must be a relative path")] if text.startswith("/") else []
    return errors + _no_way_up(text, path)


def _no_way_up(text: str, path: Path) -> list[FieldError]:
    return [invalid(path, text, "must not contain '..'")] if ".." in text.split("/") else []


def _mode(source: Tree, key: str, path: Path) -> list[FieldError]:
    mode = source.get(key)
    return [] if mode is None or 0 <= mode <= _MOST_MODE else [invalid(path / key, mode, _MODE_TEXT)]


def _items(source: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(source.get("items", ())):
        where = path / "items" @ index
        errors += [required(where / key) for key in ("key", "path") if not item.get(key)]
        errors += _item_path(item, where) + _mode(item, "mode", where)
    return errors


def _item_path(item: Tree, path: Path) -> list[FieldError]:
    text = item.get("path", "")
    errors = relative_path_errors(text, path / "path")
    if not errors and text.startswith(".."):
        errors.append(invalid(path / "path", text, "must not start with '..'"))
    return errors


def _named(key: str) -> Callable[[Any, Path], list[FieldError]]:
    """A source that names an object and chooses from its keys."""

    def check(source: Tree, path: Path) -> list[FieldError]:
        errors = [] if source.get(key) else [required(path / key)]
        return errors + _mode(source, "defaultMode", path) + _items(source, path)

    return check


def _needs(*keys: str) -> Callable[[Any, Path], list[FieldError]]:
    def check(source: Tree, path: Path) -> list[FieldError]:
        return [required(path / key) for key in keys if not source.get(key)]

    return check


def _host_path(source: Tree, path: Path) -> list[FieldError]:
    text, kind = source.get("path", ""), source.get("type", "")
    errors = _no_way_up(text, path / "path") if text else [required(path / "path")]
    return errors + ([] if kind in _HOST_PATHS else [unsupported(path / "type", kind, _HOST_PATHS)])


def _nfs(source: Tree, path: Path) -> list[FieldError]:
    errors = _needs("server", "path")(source, path)
    place = source.get("path", "")
    return [*errors, invalid(path / "path", place, "must be an absolute path")] if place and not place.startswith("/") else errors


def _downward(source: Tree, path: Path) -> list[FieldError]:
    errors = _mode(source, "defaultMode", path)
    for index, item in enumerate(source.get("items", ())):
        where = path / "items" @ index
        errors += _item_path(item, where) if item.get("path") else [required(where / "path")]
        if "fieldRef" in item and "resourceFieldRef" in item:
            errors.append(invalid(where, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
        elif "fieldRef" not in item and "resourceFieldRef" not in item:
            errors.append(required(where, "one of fieldRef and resourceFieldRef is required"))
    return errors


def _token(source: Tree, path: Path) -> list[FieldError]:
    seconds, where = source.get("expirationSeconds", _SHORTEST_TOKEN_S), path / "expirationSeconds"
    errors: list[FieldError] = []
    if seconds < _SHORTEST_TOKEN_S:
        errors.append(invalid(where, seconds, "may not specify a duration less than 10 minutes"))
    elif seconds > _LONGEST_TOKEN_S:
        errors.append(invalid(where, seconds, "may not specify a duration larger than 2^32 seconds"))
    return errors + (_item_path(source, path) if source.get("path") else [required(path / "path")])


_PROJECTED: dict[str, Callable[[Any, Path], list[FieldError]]] = {
    "secret": _named("name"),
    "configMap": _named("name"),
    "downwardAPI": _downward,
    "serviceAccountToken": _token,
}


def _projected(source: Tree, path: Path) -> list[FieldError]:
    errors = _mode(source, "defaultMode", path)
    for index, one in enumerate(source.get("sources", ())):
        where, kinds = path / "sources" @ index, list(one)
        if not kinds:
            errors.append(required(where, "must specify one of: secret, configMap, downwardAPI, serviceAccountToken, clusterTrustBundle"))
        errors += [forbidden(where / key, "may not specify more than 1 volume type per source") for key in kinds[1:]]
        errors += [error for key in kinds[:1] if key in _PROJECTED for error in _PROJECTED[key](one[key], where / key)]
    return errors


_RULES: dict[str, Callable[[Any, Path], list[FieldError]]] = {
    "configMap": _named("name"),
    "downwardAPI": _downward,
    "hostPath": _host_path,
    "nfs": _nfs,
    "persistentVolumeClaim": _needs("claimName"),
    "projected": _projected,
    "secret": _named("secretName"),
}
