"""The `lightkube` client: server-side apply with conflicts, watch, sub-resources, kinds of one's own.

Run by tests/e2e/test_clients.py with a kubeconfig; it ends with 0 when all is as that client expects.
"""

from __future__ import annotations

import uuid

from lightkube import ApiError, Client
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.apps_v1 import DeploymentSpec
from lightkube.models.autoscaling_v1 import ScaleSpec
from lightkube.models.core_v1 import Container, PodSpec, PodTemplateSpec
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import ConfigMap, Namespace
from lightkube.types import PatchType

NAMESPACE = f"light-{uuid.uuid4().hex[:6]}"
GROUP = f"{NAMESPACE}.example.com"


def applied(client: Client) -> None:
    first = ConfigMap(metadata=ObjectMeta(name="a", namespace=NAMESPACE), data={"x": "1"})
    first.apiVersion, first.kind = "v1", "ConfigMap"
    assert client.apply(first, field_manager="one").data == {"x": "1"}
    other = ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="a", namespace=NAMESPACE), data={"x": "2"})
    try:
        client.apply(other, field_manager="two")
        raise AssertionError("no conflict")
    except ApiError as error:
        assert error.status.code == 409, error
    assert client.apply(other, field_manager="two", force=True).data == {"x": "2"}


def scaled(client: Client) -> None:
    template = PodTemplateSpec(metadata=ObjectMeta(labels={"app": "a"}), spec=PodSpec(containers=[Container(name="c", image="nginx")]))
    spec = DeploymentSpec(selector=LabelSelector(matchLabels={"app": "a"}), template=template, replicas=1)
    client.create(Deployment(metadata=ObjectMeta(name="web", namespace=NAMESPACE), spec=spec))
    client.patch(Deployment.Scale, "web", {"spec": {"replicas": 2}}, namespace=NAMESPACE, patch_type=PatchType.MERGE)
    assert client.get(Deployment.Scale, "web", namespace=NAMESPACE).spec == ScaleSpec(replicas=2)
    client.wait(Deployment, "web", for_conditions=["Available"], namespace=NAMESPACE)


def own_kinds(client: Client) -> None:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 5}}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "boxes", "singular": "box", "kind": "Box"}
    definition = {
        "metadata": {"name": f"boxes.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }
    client.create(CustomResourceDefinition.from_dict(definition))
    client.wait(CustomResourceDefinition, f"boxes.{GROUP}", for_conditions=["Established"])
    boxes = create_namespaced_resource(GROUP, "v1", "Box", "boxes")
    client.create(boxes(metadata={"name": "b"}, spec={"size": 3, "colour": "red"}), namespace=NAMESPACE)
    assert client.get(boxes, "b", namespace=NAMESPACE).spec == {"size": 3}, "what the schema does not know is dropped"
    try:
        client.create(boxes(metadata={"name": "c"}, spec={"size": 9}), namespace=NAMESPACE)
        raise AssertionError("too large a box was taken")
    except ApiError as error:
        assert error.status.code == 422, error
    client.delete(CustomResourceDefinition, f"boxes.{GROUP}")


def main() -> None:
    client = Client()
    client.create(Namespace(metadata=ObjectMeta(name=NAMESPACE)))
    applied(client)
    scaled(client)
    own_kinds(client)
    client.delete(Namespace, NAMESPACE)


if __name__ == "__main__":
    main()
