"""Rows of what nodes and Pods use (metrics.k8s.io/v1beta1): asked of kubelets, never stored.

Here: their rows. Not here: the answers (``../resource_metrics.py``).

Source: https://kubernetes.io/docs/reference/external-api/metrics.v1beta1/
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver import quantity
from podwire.apiserver.definitions import META, PREFIX
from podwire.apiserver.kind import NAME, Column, Custom, Kind, Tree

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
_PACKAGE = "io.k8s.metrics.pkg.apis.metrics.v1beta1."
_META = {"$ref": PREFIX + META + "ObjectMeta"}
_USAGE = {
    "description": "What was used: cpu and memory, as quantities.",
    "type": "object",
    "additionalProperties": {"type": "string"},
}
_CONTAINER = {"type": "object", "properties": {"name": {"type": "string"}, "usage": _USAGE}}
_COLUMNS = (
    NAME,
    Column("CPU", description="Cores that were used on the average of the window."),
    Column("Memory", description="Bytes of memory."),
    Column("Window", description="The seconds that the figures are the average of."),
)


def _schema(**own: Any) -> dict[str, Any]:
    texts = {key: {"type": "string"} for key in ("apiVersion", "kind", "timestamp", "window")}
    return {"type": "object", "properties": {**texts, "metadata": _META, **own}}


def _node_row(tree: Tree, _now: datetime) -> list[Any]:
    usage = tree.get("usage", {})
    return [tree["metadata"]["name"], usage.get("cpu", ""), usage.get("memory", ""), tree.get("window", "")]


def _pod_row(tree: Tree, _now: datetime) -> list[Any]:
    def total(name: str) -> str:
        return quantity.canonical(str(sum(quantity.value(one["usage"][name]) for one in tree.get("containers", ()))))

    return [tree["metadata"]["name"], total("cpu"), total("memory"), tree.get("window", "")]


def _kind(plural: str, kind: str, row: Any, schema: dict[str, Any], *, namespaced: bool) -> Kind:
    return Kind(
        GROUP,
        VERSION,
        plural,
        kind,
        namespaced,
        _PACKAGE + kind,
        singular=plural.removesuffix("s"),
        verbs=("get", "list"),
        columns=_COLUMNS,
        row=row,
        generations=False,
        custom=Custom(lambda _tree: [], None, schema),
    )


NODE_METRICS = _kind("nodes", "NodeMetrics", _node_row, _schema(usage=_USAGE), namespaced=False)
POD_METRICS = _kind("pods", "PodMetrics", _pod_row, _schema(containers={"type": "array", "items": _CONTAINER}), namespaced=True)
KINDS = (NODE_METRICS, POD_METRICS)
