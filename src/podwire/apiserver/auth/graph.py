"""Which Secrets, ConfigMaps, claims, volumes and ServiceAccounts the Pods of a node refer to.

Pure: it is told of Pods and volumes and asked whether something is related to a node. What a Pod refers to is read when its node first
asks, and again only when the Pod gets containers (ephemeral ones are all that can come later); where a Pod is, is known at once.

Source: https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Tree = Mapping[str, Any]
Thing = tuple[str, str, str]  # plural, namespace, name
MIRROR = "kubernetes.io/config.mirror"


class Graph:
    """``read(namespace, name)`` gives a Pod as it is, None when there is none."""

    def __init__(self, read: Callable[[str, str], Tree | None]) -> None:
        self._read = read
        self._node_of: dict[tuple[str, str], str] = {}
        self._things: dict[tuple[str, str], frozenset[Thing]] = {}  # of the Pods that were read
        self._unread: dict[str, dict[tuple[str, str], None]] = {}
        self._related: dict[str, Counter[Thing]] = {}
        self._claim_of: dict[str, Thing] = {}  # PersistentVolume -> its claim
        self._volumes_of: dict[Thing, dict[str, None]] = {}  # Secret -> PersistentVolumes that refer to it
        self._secrets_of: dict[str, frozenset[Thing]] = {}

    def node_of(self, namespace: str, name: str) -> str:
        """Name the node that a Pod is on; ``""`` for none."""
        return self._node_of.get((namespace, name), "")

    def put_pod(self, namespace: str, name: str, node: str) -> None:
        """Learn of a Pod, or that what it refers to may have changed."""
        pod = (namespace, name)
        self.delete_pod(namespace, name)
        if node:
            self._node_of[pod] = node
            self._unread.setdefault(node, {})[pod] = None

    def delete_pod(self, namespace: str, name: str) -> None:
        pod = (namespace, name)
        node = self._node_of.pop(pod, "")
        if not node:
            return
        things = self._things.pop(pod, None)
        if things is None:
            unread = self._unread[node]
            del unread[pod]
            if not unread:
                del self._unread[node]
            return
        related = self._related[node]
        for thing in things:
            related[thing] -= 1
            if not related[thing]:
                del related[thing]
        if not related:
            del self._related[node]

    def put_volume(self, name: str, tree: Tree) -> None:
        """Learn of a PersistentVolume: whose it is, which Secrets it needs."""
        self.delete_volume(name)
        spec = tree.get("spec") or {}
        claim = spec.get("claimRef") or {}
        if claim.get("name"):
            self._claim_of[name] = ("persistentvolumeclaims", claim.get("namespace", ""), claim["name"])
        secrets = frozenset(_secrets_of_volume(spec, claim.get("namespace", "")))
        if secrets:
            self._secrets_of[name] = secrets
        for secret in secrets:
            self._volumes_of.setdefault(secret, {})[name] = None

    def delete_volume(self, name: str) -> None:
        self._claim_of.pop(name, None)
        for secret in self._secrets_of.pop(name, ()):
            volumes = self._volumes_of[secret]
            del volumes[name]
            if not volumes:
                del self._volumes_of[secret]

    def related(self, node: str, thing: Thing) -> bool:
        """Say whether some Pod on the node refers to a thing, or the claim that a Pod refers to does."""
        plural, namespace, name = thing
        if plural == "pods":
            return self._node_of.get((namespace, name)) == node
        if plural == "persistentvolumes":
            claim = self._claim_of.get(name)
            return claim is not None and self.related(node, claim)
        self._read_all(node)
        if thing in self._related.get(node, ()):
            return True
        return any(self.related(node, ("persistentvolumes", "", volume)) for volume in self._volumes_of.get(thing, ()))

    def _read_all(self, node: str) -> None:
        for pod in self._unread.pop(node, ()):
            tree = self._read(*pod)
            self._things[pod] = things = frozenset(things_of(pod[0], tree)) if tree is not None else frozenset()
            if things:
                self._related.setdefault(node, Counter()).update(things)


def things_of(namespace: str, pod: Tree) -> Iterator[Thing]:
    """Give what a Pod refers to. A mirror Pod refers to nothing."""
    spec = pod.get("spec") or {}
    if MIRROR in ((pod.get("metadata") or {}).get("annotations") or {}):
        return
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        yield "serviceaccounts", namespace, account
    for secret in spec.get("imagePullSecrets") or ():
        if secret.get("name"):
            yield "secrets", namespace, secret["name"]
    for containers in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(containers) or ():
            yield from _of_container(namespace, container)
    for volume in spec.get("volumes") or ():
        yield from _of_volume(namespace, volume)
        if "ephemeral" in volume:
            yield "persistentvolumeclaims", namespace, f"{(pod.get('metadata') or {}).get('name', '')}-{volume.get('name', '')}"


def _of_container(namespace: str, container: Tree) -> Iterator[Thing]:
    for source in container.get("envFrom") or ():
        yield from _named(namespace, source, "configMapRef", "secretRef")
    for variable in container.get("env") or ():
        yield from _named(namespace, variable.get("valueFrom") or {}, "configMapKeyRef", "secretKeyRef")


def _named(namespace: str, source: Tree, config_map: str, secret: str) -> Iterator[Thing]:
    for field, plural in ((config_map, "configmaps"), (secret, "secrets")):
        name = (source.get(field) or {}).get("name")
        if name:
            yield plural, namespace, name


def _of_volume(namespace: str, volume: Tree) -> Iterator[Thing]:
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
    if claim:
        yield "persistentvolumeclaims", namespace, claim
    secret = (volume.get("secret") or {}).get("secretName")
    if secret:
        yield "secrets", namespace, secret
    config_map = (volume.get("configMap") or {}).get("name")
    if config_map:
        yield "configmaps", namespace, config_map
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from _named(namespace, source, "configMap", "secret")
    for field in ("azureFile", "cephfs", "csi", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"):
        source = volume.get(field) or {}
        reference = source.get("secretName") or ((source.get("secretRef") or source.get("nodePublishSecretRef") or {}).get("name"))
        if reference:
            yield "secrets", namespace, reference


def _secrets_of_volume(spec: Tree, claim_namespace: str) -> Iterator[Thing]:
    """The Secrets that a node needs to mount a PersistentVolume."""
    csi = spec.get("csi") or {}
    for field in ("nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"):
        reference = csi.get(field) or {}
        if reference.get("name"):
            yield "secrets", reference.get("namespace", ""), reference["name"]
    for field in ("cephfs", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"):
        reference = (spec.get(field) or {}).get("secretRef") or {}
        if reference.get("name"):
            yield "secrets", reference.get("namespace") or claim_namespace, reference["name"]
    azure = spec.get("azureFile") or {}
    if azure.get("secretName"):
        yield "secrets", azure.get("secretNamespace") or claim_namespace, azure["secretName"]
