"""The row of the group node.k8s.io: RuntimeClass. What it does to Pods is admission's (``../admission/runtime_classes.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/node-resources/runtime-class-v1/
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import age
from podwire.apiserver.kind import AGE, NAME, Column, Kind, Tree
from podwire.apiserver.kinds.pod_validation import toleration_errors
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, duplicate, invalid, label_errors
from podwire.apiserver.validation_values import amount_errors, label_name_errors


def _row(tree: Tree, now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], tree.get("handler", ""), age(tree["metadata"].get("creationTimestamp"), now)]


def _validate(tree: Tree, old: Tree | None) -> list[FieldError]:
    errors = label_name_errors(tree.get("handler", ""), Path("handler"))
    if old is not None and tree.get("handler") != old.get("handler"):
        errors.append(invalid(Path("handler"), tree.get("handler", ""), IMMUTABLE))
    amounts = tree.get("overhead", {}).get("podFixed", {})
    errors += [error for name, text in amounts.items() for error in amount_errors(text, Path("overhead") / "podFixed" % name)]
    where = Path("scheduling")
    scheduling = tree.get("scheduling", {})
    errors += label_errors(scheduling.get("nodeSelector", {}), where / "nodeSelector")
    errors += toleration_errors(scheduling, where / "tolerations")
    tolerations = scheduling.get("tolerations", [])
    return errors + [duplicate(where / "tolerations" @ at, one) for at, one in enumerate(tolerations) if one in tolerations[:at]]


RUNTIME_CLASS = Kind(
    "node.k8s.io",
    "v1",
    "runtimeclasses",
    "RuntimeClass",
    False,
    "io.k8s.api.node.v1.RuntimeClass",
    columns=(NAME, Column("Handler", description="By what the Pods of this class are run."), AGE),
    row=_row,
    validate=_validate,
    generations=False,
)

KINDS = (RUNTIME_CLASS,)
