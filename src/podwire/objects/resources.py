"""Where each kind lives in the API: one row a kind that an agent reads or writes.

A row is all that a client needs to build a path and to decode an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from podwire.objects import apps, autoscaling, batch, certificates, compute, core, discovery, networking, policy, storage
from podwire.objects.meta import Object

T = TypeVar("T", bound=Object)


@dataclass(frozen=True)
class Resource(Generic[T]):
    """A kind's place in the API. ``group`` is ``""`` for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool
    type: type[T]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Build the URL path. A namespaced resource without a namespace means all namespaces."""
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", False, core.Namespace)
NODES = Resource("", "v1", "nodes", "Node", False, core.Node)
PODS = Resource("", "v1", "pods", "Pod", True, core.Pod)
SERVICES = Resource("", "v1", "services", "Service", True, core.Service)
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints", True, core.Endpoints)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", True, core.ConfigMap)
SECRETS = Resource("", "v1", "secrets", "Secret", True, core.Secret)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True, core.ServiceAccount)
RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False, core.RuntimeClass)
CERTIFICATE_SIGNING_REQUESTS = Resource(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    False,
    certificates.CertificateSigningRequest,
)
EVENTS = Resource("", "v1", "events", "Event", True, core.Event)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", True, apps.Deployment)
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet", True, apps.ReplicaSet)
REPLICATION_CONTROLLERS = Resource("", "v1", "replicationcontrollers", "ReplicationController", True, apps.ReplicationController)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", True, apps.DaemonSet)
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet", True, apps.StatefulSet)
CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", "ControllerRevision", True, apps.ControllerRevision)
JOBS = Resource("batch", "v1", "jobs", "Job", True, batch.Job)
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob", True, batch.CronJob)
HORIZONTAL_POD_AUTOSCALERS = Resource(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", True, autoscaling.HorizontalPodAutoscaler
)
POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, policy.PodDisruptionBudget)
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, policy.PriorityClass)
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", False, storage.PersistentVolume)
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, storage.PersistentVolumeClaim)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", False, storage.StorageClass)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", True, apps.Lease)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, discovery.EndpointSlice)
SERVICE_CIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", False, networking.ServiceCIDR)
ADDRESSES = Resource("compute.podwire.dev", "v1", "addresses", "Address", False, compute.Address)
FORWARDING_RULES = Resource("compute.podwire.dev", "v1", "forwardingrules", "ForwardingRule", False, compute.ForwardingRule)
TARGET_POOLS = Resource("compute.podwire.dev", "v1", "targetpools", "TargetPool", False, compute.TargetPool)
INSTANCES = Resource("compute.podwire.dev", "v1", "instances", "Instance", False, compute.Instance)

ALL: tuple[Resource[Object], ...] = tuple(value for value in list(globals().values()) if isinstance(value, Resource))
