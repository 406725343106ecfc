"""The group autoscaling/v2: how many Pods something should have, by what they use.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/
"""

from __future__ import annotations

from podwire.objects.core import Condition
from podwire.objects.meta import Object, Value


class CrossVersionObjectReference(Value, frozen=True):
    api_version: str = ""
    kind: str = ""
    name: str = ""


class MetricTarget(Value, frozen=True):
    """``type``: Utilization (percent of what is requested), AverageValue, Value."""

    type: str = ""
    average_utilization: int | None = None
    average_value: str | int | float | None = None
    value: str | int | float | None = None


class ResourceMetricSource(Value, frozen=True):
    """Of all containers of a Pod, or of the one that is named (``containerResource``)."""

    name: str = ""
    container: str = ""
    target: MetricTarget = MetricTarget()


class MetricIdentifier(Value, frozen=True):
    name: str = ""


class NamedMetricSource(Value, frozen=True):
    """A metric that an adapter serves: of Pods, of an object, or of something outside."""

    metric: MetricIdentifier = MetricIdentifier()
    described_object: CrossVersionObjectReference = CrossVersionObjectReference()


class MetricSpec(Value, frozen=True):
    """Only resources are measured here; nobody serves the other three."""

    type: str = ""
    resource: ResourceMetricSource | None = None
    container_resource: ResourceMetricSource | None = None
    pods: NamedMetricSource | None = None
    object: NamedMetricSource | None = None
    external: NamedMetricSource | None = None


class ScalingPolicy(Value, frozen=True):
    """``type``: Pods or Percent."""

    type: str = ""
    value: int = 0
    period_seconds: int = 15


class ScalingRules(Value, frozen=True):
    stabilization_window_seconds: int | None = None
    select_policy: str = "Max"
    policies: tuple[ScalingPolicy, ...] = ()
    tolerance: str | int | float | None = None


class ScalingBehavior(Value, frozen=True):
    scale_up: ScalingRules | None = None
    scale_down: ScalingRules | None = None


class HorizontalPodAutoscalerSpec(Value, frozen=True):
    scale_target_ref: CrossVersionObjectReference = CrossVersionObjectReference()
    min_replicas: int = 1
    max_replicas: int = 1
    metrics: tuple[MetricSpec, ...] = ()
    behavior: ScalingBehavior | None = None


class HorizontalPodAutoscalerStatus(Value, frozen=True):
    observed_generation: int = 0
    last_scale_time: str | None = None
    current_replicas: int = 0
    desired_replicas: int = 0
    conditions: tuple[Condition, ...] = ()


class HorizontalPodAutoscaler(Object, frozen=True):
    spec: HorizontalPodAutoscalerSpec = HorizontalPodAutoscalerSpec()
    status: HorizontalPodAutoscalerStatus = HorizontalPodAutoscalerStatus()
