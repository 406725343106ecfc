"""An operator written with kopf: a kind of its own, children that it owns, status, finalizers. Run with ``kopf run``.

For each Site it makes a Deployment and a Service that belong to it, says in the Site's status how many Pods there are, and leaves a note
when the Site is deleted.
"""

from __future__ import annotations

import kopf
import kubernetes


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: object) -> None:
    settings.posting.level = 30
    settings.peering.standalone = True


@kopf.on.create("sites.example.com")
def create(spec: kopf.Spec, name: str, namespace: str, **_: object) -> dict[str, int]:
    labels = {"site": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": spec["pods"], "selector": {"matchLabels": labels}, "template": template},
    }
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"selector": labels, "ports": [{"port": 80}]}}
    kopf.adopt([deployment, service])
    kubernetes.client.AppsV1Api().create_namespaced_deployment(namespace, deployment)
    kubernetes.client.CoreV1Api().create_namespaced_service(namespace, service)
    return {"pods": spec["pods"]}


@kopf.on.field("sites.example.com", field="spec.pods")
def resize(old: int | None, new: int, name: str, namespace: str, patch: kopf.Patch, **_: object) -> None:
    if old is not None:
        kubernetes.client.AppsV1Api().patch_namespaced_deployment(name, namespace, {"spec": {"replicas": new}})
        patch.status["create"] = {"pods": new}


@kopf.on.delete("sites.example.com")
def delete(name: str, namespace: str, **_: object) -> None:
    note = {"metadata": {"name": f"{name}-is-gone"}}
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, note)
