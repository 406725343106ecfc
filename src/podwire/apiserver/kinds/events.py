"""The row of events.k8s.io/v1 Event: the same objects as the Events of the core group, with other names for some of their fields.

Source: https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

from __future__ import annotations

from dataclasses import replace

from podwire.apiserver.kind import Conversion, Kind, Tree
from podwire.apiserver.kinds.core import EVENT
from podwire.apiserver.validation import FieldError, Path, invalid, required, unsupported
from podwire.apiserver.validation_values import qualified_errors

_LONGEST = {"reason": 128, "action": 128, "reportingInstance": 128, "note": 1024}
_TYPES = ("Normal", "Warning")
_THERE = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_BACK = {there: here for here, there in _THERE.items()}
_FIELDS = {
    **{f"regarding.{key}": f"involvedObject.{key}" for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion")},
    "regarding.fieldPath": "involvedObject.fieldPath",
    "reportingController": "reportingComponent",
}


def _there(tree: Tree) -> Tree:
    made = {_THERE.get(key, key): value for key, value in tree.items()}
    made.setdefault("involvedObject", {})
    return made


def _back(tree: Tree) -> Tree:
    return {_BACK.get(key, key): value for key, value in tree.items()}


def _validate(tree: Tree, _old: Tree | None) -> list[FieldError]:
    """Check what this version asks for beyond the core one. An Event that is as old recorders write them has none of it."""
    if not tree.get("eventTime"):
        return [required(Path("eventTime"))] if "deprecatedFirstTimestamp" not in tree else []
    errors: list[FieldError] = []
    controller = tree.get("reportingController", "")
    errors += qualified_errors(controller, Path("reportingController")) if controller else [required(Path("reportingController"))]
    errors += [required(Path(key)) for key in ("reportingInstance", "action", "reason") if not tree.get(key)]
    for key, limit in _LONGEST.items():
        text = tree.get(key, "")
        if len(text.encode()) > limit:
            errors.append(invalid(Path(key), "", f"can have at most {limit} characters"))
    if tree.get("type", "") not in _TYPES:
        errors.append(unsupported(Path("type"), tree.get("type", ""), _TYPES))
    return errors


EVENT_V1: Kind = replace(
    EVENT,
    group="events.k8s.io",
    version="v1",
    definition="io.k8s.api.events.v1.Event",
    selectable_fields={},
    validate=_validate,
    conversion=Conversion(
        EVENT,
        _there,
        _back,
        fields=_FIELDS,
        words=tuple((there, here) for there, here in _BACK.items() if there not in ("count", "source", "message")),
    ),
)

KINDS = (EVENT_V1,)
