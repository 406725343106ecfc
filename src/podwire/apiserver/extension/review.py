"""ConversionReviews: what a program that converts objects is asked, and what of its answer is taken.

One review holds all objects of one answer to a client, whatever versions they are in. A program may change all of an object but what
identifies it: of the metadata it gives back, labels and annotations are taken and all else is restored.

Here: the two bodies and the words of what is wrong with the second. Not here: the call (``converting.py``).

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import FieldError, Path, annotation_errors, label_errors, summary

KNOWN = ("v1", "v1beta1")  # of ConversionReview
_GROUP = "apiextensions.k8s.io"
_IDENTITY = (("name", "name"), ("namespace", "namespace"), ("uid", "UID"))
_CHECKS = (
    ("labels", Path("metadata") / "labels", label_errors),
    ("annotations", Path("metadata") / "annotation", annotation_errors),  # as upstream spells it
)


class Unusable(Exception):
    """An answer that is not taken. The text goes on after ``conversion webhook for GROUP/VERSION, Kind=KIND``."""


def question(trees: Sequence[Tree], api_version: str, uid: str, understood: Sequence[str]) -> tuple[str, bytes]:
    """Give the version of the review and its body. ``understood``: what the definition says of its program. Raises Unusable."""
    version = next((one for one in understood if one in KNOWN), "")
    if not version:
        raise Unusable(" failed: no supported conversion review versions")
    request = {"uid": uid, "desiredAPIVersion": api_version, "objects": trees}
    return version, orjson.dumps({"kind": "ConversionReview", "apiVersion": f"{_GROUP}/{version}", "request": request})


def objects(text: bytes, version: str, uid: str) -> list[Any]:
    """Read an answer: what it gives as converted. Raises Unusable."""
    try:
        review = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Unusable(f" failed: couldn't get version/kind; json parse error: {error}") from None
    if not isinstance(review, dict):
        raise Unusable(" failed: couldn't get version/kind; json parse error: the answer is no object")
    found = f"{review.get('apiVersion', '')}, Kind={review.get('kind', '')}"
    if version == "v1" and found != f"{_GROUP}/v1, Kind=ConversionReview":
        raise Unusable(f" failed: expected webhook response of {_GROUP}/v1, Kind=ConversionReview, got {found}")
    response = review.get("response")
    if not isinstance(response, dict):
        raise Unusable(" failed: no response provided")
    if version == "v1" and response.get("uid") != uid:
        raise Unusable(f' failed: expected response.uid="{uid}", got "{response.get("uid", "")}"')
    result = response.get("result")
    said = result if isinstance(result, dict) else {}
    if said.get("status") != "Success":
        why = str(said.get("message") or "") or f"response.result.status was '{said.get('status', '')}', not 'Success'"
        raise Unusable(f" failed: {why}")
    converted = response.get("convertedObjects")
    return converted if isinstance(converted, list) else []


def taken(asked: Sequence[Tree], found: Sequence[Any], api_version: str) -> list[Tree]:
    """Give the converted objects, each with the metadata of what was asked. Raises Unusable."""
    if len(found) != len(asked):
        raise Unusable(f" returned {len(found)} objects, expected {len(asked)}")
    one = len(asked) == 1
    for index, (before, after) in enumerate(zip(asked, found, strict=True)):
        place = f"converted object at index {index}"
        if why := _other_kind(before, after, api_version):
            raise Unusable(f" returned invalid {f'object at index {index}' if one else place}: {why}")
        if why := _other_object(before, after):
            raise Unusable(f" returned invalid {'object' if one else place}: {why}")
        if why := _restore(before["metadata"], after):
            raise Unusable(f" returned invalid metadata{'' if one else f' in object at index {index}'}: {why}")
    return list(found)


def _other_kind(before: Tree, after: Any, api_version: str) -> str:
    """Say how an object is not of the version and kind that were asked for."""
    if not isinstance(after, dict):
        return f"Object 'Kind' is missing in '{orjson.dumps(after).decode()}'"
    if after.get("apiVersion") != api_version:
        return f"invalid groupVersion (expected {api_version}, received {after.get('apiVersion', '')})"
    if after.get("kind") != before["kind"]:
        return f"invalid kind (expected {before['kind']}, received {after.get('kind', '')})"
    return ""


def _other_object(before: Tree, after: Tree) -> str:
    """Say how an object is another than was sent."""
    given = after.get("metadata")
    names = given if isinstance(given, dict) else {}
    for key, word in _IDENTITY:
        was, now = before["metadata"].get(key, ""), names.get(key, "")
        if was != now:
            return f"must have the same {word}: {was} != {now}"
    return ""


def _restore(before: Tree, after: Tree) -> str:
    """Put back the metadata that is not the program's to change; say what is wrong with the rest."""
    if "metadata" not in after:
        return "missing metadata in converted object"
    given = after["metadata"]
    if not isinstance(given, dict):
        return f"invalid metadata of type {type(given).__name__} in converted object"
    kept = {key: value for key, value in before.items() if key not in ("labels", "annotations")}
    for key, path, check in _CHECKS:
        values = given.get(key)
        if values is None:
            continue
        if not isinstance(values, dict):
            return f"invalid metadata.{key} of type {type(values).__name__} in converted object"
        for name, value in values.items():
            if not isinstance(value, str):
                return f"metadata.{key}[{name}] must be a string, but is {type(value).__name__} in converted object"
        errors: list[FieldError] = check(values, path) if values != before.get(key, {}) else []
        if errors:
            return summary(errors)
        kept[key] = values
    after["metadata"] = kept
    return ""
