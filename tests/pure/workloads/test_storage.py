"""Claims and volumes: which volume a claim takes, what is said when there is none, what becomes of a volume whose claim is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.core import Node, Pod
from podwire.objects.storage import (
    BIND_COMPLETED,
    DIRECTORY_DRIVER,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    directory_of,
    storage,
)
from podwire.workloads.scheduler import claims as scheduling
from podwire.workloads.scheduler import desired as scheduler
from podwire.workloads.scheduler.load import Load
from podwire.workloads.storage import desired
from podwire.workloads.storage.desired import ClaimPlan

CSI = {"driver": DIRECTORY_DRIVER, "volumeHandle": "x"}


def claim(size: str = "1Gi", cls: str | None = "fast", phase: str = "Pending", meta: dict[str, Any] | None = None, **spec: Any) -> Any:
    body = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}} | spec
    if cls is not None:
        body["storageClassName"] = cls
    metadata = {"namespace": "shop", "name": "data", "uid": "c1", "resourceVersion": "7"} | (meta or {})
    return codec.convert(PersistentVolumeClaim, {"metadata": metadata, "spec": body, "status": {"phase": phase}})


def volume(name: str = "v", size: str = "1Gi", cls: str = "fast", phase: str = "Available", meta: Any = None, **spec: Any) -> Any:
    body = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "storageClassName": cls, "csi": CSI} | spec
    metadata = {"name": name, "resourceVersion": "9"} | (meta or {})
    return codec.convert(PersistentVolume, {"metadata": metadata, "spec": body, "status": {"phase": phase}})


def pod(node: str = "", name: str = "web", claim_name: str = "data") -> Pod:
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": claim_name}}]
    spec = {"nodeName": node, "volumes": volumes, "containers": [{"name": "c"}]}
    return codec.convert(Pod, {"metadata": {"namespace": "shop", "name": name, "uid": "p1"}, "spec": spec})


def storage_class(mode: str = "Immediate", provisioner: str = "podwire.dev/directory", **more: Any) -> StorageClass:
    tree = {"metadata": {"name": "fast"}, "provisioner": provisioner, "volumeBindingMode": mode} | more
    return codec.convert(StorageClass, tree)


def decide(one: Any, volumes: list[Any] | None = None, cls: StorageClass | None = None, pods: tuple[Pod, ...] = ()) -> ClaimPlan:
    by_name = {volume.name: volume for volume in volumes or []}
    return desired.decide_claim(one, by_name.get(one.spec.volume_name), by_name.values(), {"fast": cls} if cls else {}, pods)


def reference(uid: str = "c1", name: str = "data") -> dict[str, str]:
    return {"namespace": "shop", "name": name, "uid": uid}


def test_a_claim_takes_the_smallest_volume_that_suits() -> None:
    suits = [volume("b", "3Gi"), volume("a", "2Gi"), volume("small", "500Mi"), volume("taken", claimRef=reference("c2", "other"))]
    wrong = [
        volume("class", cls="slow"),
        volume("modes", accessModes=["ReadWriteMany"]),
        volume("block", volumeMode="Block"),
        volume("pending", phase="Pending"),
        volume("going", meta={"deletionTimestamp": "2026-01-01T00:00:00Z"}),
    ]
    plan = decide(claim(), suits + wrong)
    assert plan.bind is not None
    assert plan.bind.volume.name == "a"
    assert decide(claim(), wrong).bind is None
    labelled = volume("l", "9Gi", meta={"labels": {"disk": "ssd"}})
    chosen = decide(claim(selector={"matchLabels": {"disk": "ssd"}}), [*suits, labelled]).bind
    assert chosen is not None
    assert chosen.volume.name == "l"


def test_a_volume_that_is_promised_to_the_claim_goes_first() -> None:
    promised = volume("promised", "9Gi", claimRef={"namespace": "shop", "name": "data"})
    plan = decide(claim(), [volume("a"), promised], storage_class("WaitForFirstConsumer"))
    assert plan.bind is not None
    assert plan.bind.volume.name == "promised"
    assert desired.promise(promised, claim()) is not None
    assert desired.promise(volume(claimRef=reference()), claim()) is None


@pytest.mark.parametrize(
    ("plan", "reason", "words"),
    [
        (decide(claim(cls="")), "FailedBinding", "no persistent volumes available for this claim and no storage class is set"),
        (decide(claim()), "ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found'),
        (
            decide(claim(), cls=storage_class("WaitForFirstConsumer")),
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        (
            decide(claim(), cls=storage_class("WaitForFirstConsumer"), pods=(pod(),)),
            "WaitForPodScheduled",
            "waiting for pod web to be scheduled",
        ),
        (decide(claim(), cls=storage_class(provisioner="disk.example")), "ExternalProvisioning", "external provisioner 'disk.example'"),
        (
            decide(claim(volumeName="v"), [volume("v", "1Mi")]),
            "VolumeMismatch",
            'Cannot bind to requested volume "v": requested PV is too small',
        ),
        (
            decide(claim(volumeName="v"), [volume("v", claimRef=reference("c9"))]),
            "FailedBinding",
            'volume "v" already bound to a different claim.',
        ),
        (
            decide(claim(volumeName="v", meta={"annotations": {BIND_COMPLETED: "yes"}})),
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        ),
        (
            decide(claim(volumeName="v", meta={"annotations": {BIND_COMPLETED: "yes"}}), [volume("v", claimRef=reference("c9"))]),
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        ),
    ],
)
def test_what_is_said_of_a_claim_that_is_not_bound(plan: ClaimPlan, reason: str, words: str) -> None:
    [notice] = plan.notices
    assert notice.reason == reason
    assert words in notice.message
    assert plan.bind is None
    assert plan.provision is None


def test_a_volume_is_made_at_once_or_when_a_node_was_chosen() -> None:
    for one in (
        decide(claim(), cls=storage_class()),
        decide(claim(meta={"annotations": {SELECTED_NODE: "n"}}), cls=storage_class("WaitForFirstConsumer")),
    ):
        assert one.provision is not None
        made = codec.convert(PersistentVolume, one.provision)
        assert (made.name, made.spec.persistent_volume_reclaim_policy, made.spec.access_modes) == ("pvc-c1", "Delete", ("ReadWriteOnce",))
        assert made.spec.claim_ref is not None
        assert made.spec.claim_ref.uid == "c1"
        assert storage(made.spec.capacity) == 1 << 30
    refused = decide(claim(selector={"matchLabels": {"a": "b"}}), cls=storage_class())
    assert refused.provision is None
    assert "claim Selector is not supported" in refused.notices[1].message


def test_a_bound_claim_grows_where_its_class_lets_it() -> None:
    bound = claim("2Gi", phase="Bound", volumeName="v", meta={"annotations": {BIND_COMPLETED: "yes"}})
    held = volume("v", "1Gi", phase="Bound", claimRef=reference())
    assert decide(bound, [held], storage_class()).grow is None
    grown = decide(bound, [held], storage_class(allowVolumeExpansion=True))
    assert grown.grow == (held, {"capacity": {"storage": "2Gi"}})
    after = decide(bound, [volume("v", "2Gi", phase="Bound", claimRef=reference())], storage_class(allowVolumeExpansion=True))
    assert after.status is not None
    assert after.status["capacity"] == {"storage": "2Gi"}
    assert "allocatedResources" not in after.status  # it had no size before
    had = msgspec.structs.replace(bound, status=msgspec.structs.replace(bound.status, capacity={"storage": "1Gi"}))
    after = decide(had, [volume("v", "2Gi", phase="Bound", claimRef=reference())], storage_class(allowVolumeExpansion=True))
    assert after.status is not None
    assert after.status["allocatedResources"] == {"storage": "2Gi"}


def test_a_claim_in_use_stays() -> None:
    going = claim(meta={"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kubernetes.io/pvc-protection"]})
    assert not decide(going, pods=(pod("n1"),)).let_go
    assert decide(going, pods=(pod(""),)).let_go
    assert decide(going).let_go


GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["kubernetes.io/pv-protection"]}


def test_what_becomes_of_a_volume() -> None:
    def of(one: Any, of_claim: Any = None) -> Any:
        return desired.decide_volume(one, of_claim)

    assert of(volume(phase="Pending")).status["phase"] == "Available"
    held = volume(phase="Bound", claimRef=reference(), persistentVolumeReclaimPolicy="Delete")
    mine = claim(volumeName="v", meta={"annotations": {BIND_COMPLETED: "yes"}})
    assert of(held, mine) == desired.VolumePlan()
    assert of(held).status == {"phase": "Released"}
    assert of(held, claim(meta={"uid": "c2"})).status == {"phase": "Released"}
    released = volume(phase="Released", claimRef=reference(), persistentVolumeReclaimPolicy="Delete")
    assert of(released).reclaim
    assert of(volume(phase="Released", claimRef=reference())) == desired.VolumePlan()  # Retain
    assert of(volume(phase="Released", claimRef=reference(), meta=GOING)).let_go
    assert not of(volume(phase="Released", claimRef=reference(), meta=GOING)).reclaim
    assert not of(volume(phase="Bound", claimRef=reference(), meta=GOING), mine).let_go
    foreign = of(volume(phase="Released", claimRef=reference(), persistentVolumeReclaimPolicy="Delete", csi={"driver": "other"}))
    assert (foreign.status["phase"], foreign.notices[0].reason) == ("Failed", "VolumeFailedDelete")
    elsewhere = claim(volumeName="w", meta={"annotations": {BIND_COMPLETED: "yes"}})
    by_us = volume(phase="Bound", claimRef=reference(), meta={"annotations": {"pv.kubernetes.io/bound-by-controller": "yes"}})
    assert of(by_us, elsewhere).spec == {"claimRef": None}


@given(st.text(max_size=20))
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    try:
        path = directory_of("/state", name)
    except ValueError:
        return
    assert path.rsplit("/", 1)[0] == "/state/volumes"
    assert path.rsplit("/", 1)[1] not in ("", ".", "..")


# What the scheduler makes of it ------------------------------------------------------------------------------------------------


def place(
    one: Pod, of_claim: Any = None, of_volume: Any = None, cls: StorageClass | None = None, there: tuple[Pod, ...] = ()
) -> scheduler.Decision:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "110"}}
    nodes = [codec.convert(Node, {"metadata": {"name": name, "labels": {"disk": name}}, "status": ready}) for name in ("n1", "n2")]
    known = scheduling.Known(
        lambda key: of_claim if key == "shop/data" else None,
        lambda name: of_volume if name == "v" else None,
        lambda name: cls if name == "fast" else None,
        lambda: [] if of_volume is None else [of_volume],
    )
    [decision] = scheduler.decide([one], nodes, Load.of(there), scheduler.Surroundings(known=known))
    return replace(decision, reason=decision.reason.partition(" preemption: ")[0])


def test_a_pod_waits_for_its_claims() -> None:
    assert place(pod()).reason == '0/2 nodes are available: persistentvolumeclaim "data" not found.'
    unbound = "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
    assert place(pod(), claim(), cls=storage_class()).reason == unbound
    going = claim(meta={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert 'persistentvolumeclaim "data" is being deleted' in place(pod(), going, cls=storage_class()).reason
    delayed = storage_class("WaitForFirstConsumer")
    chosen = place(pod(), claim(), cls=delayed)
    assert (chosen.node, [one.name for one in chosen.choose]) == ("n1", ["data"])
    waits = place(pod(), claim(meta={"annotations": {SELECTED_NODE: "n1"}}), cls=delayed)
    assert (waits.node, waits.reason) == ("", "")
    bound = claim(volumeName="v", meta={"annotations": {BIND_COMPLETED: "yes"}})
    assert place(pod(), bound, volume()).node == "n1"


def test_a_claim_of_one_pod_is_that_pods() -> None:
    exclusive = claim(volumeName="v", accessModes=["ReadWriteOncePod"], meta={"annotations": {BIND_COMPLETED: "yes"}})
    words = "2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode."
    assert place(pod(), exclusive, volume()).node == "n1"
    assert place(pod(), exclusive, volume(), there=(pod("n2", "other"),)).reason == f"0/2 nodes are available: {words}"
    assert place(pod(), exclusive, volume(), there=(pod("n2", "other", "another"),)).node == "n1"
    shared = claim(volumeName="v", meta={"annotations": {BIND_COMPLETED: "yes"}})
    assert place(pod(), shared, volume(), there=(pod("n2", "other"),)).node


def test_who_uses_a_claim_of_one_pod_gives_way_to_who_is_more_important() -> None:
    exclusive = claim(volumeName="v", accessModes=["ReadWriteOncePod"], meta={"annotations": {BIND_COMPLETED: "yes"}})
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"pods": "110"}}
    nodes = [codec.convert(Node, {"metadata": {"name": name}, "status": ready}) for name in ("n1", "n2")]
    known = scheduling.Known(lambda _key: exclusive, lambda _name: volume())
    important = msgspec.structs.replace(pod(), spec=msgspec.structs.replace(pod().spec, priority=10))
    load = Load.of([pod("n2", "other")])
    [decision] = scheduler.decide([important], nodes, load, scheduler.Surroundings(known=known))
    assert decision.preempt is not None
    assert (decision.preempt.node, [one.name for one in decision.preempt.victims]) == ("n2", ["other"])
    assert load == Load.of([pod("n2", "other")])


def test_a_volume_holds_its_pods_where_it_can_be_reached() -> None:
    bound = claim(volumeName="v", meta={"annotations": {BIND_COMPLETED: "yes"}})

    def only(name: str) -> Any:
        term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": [name]}]}
        return volume(nodeAffinity={"required": {"nodeSelectorTerms": [term]}})

    assert place(pod(), bound, only("n2")).node == "n2"
    assert place(pod(), bound, only("n3")).reason == "0/2 nodes are available: 2 node(s) had volume node affinity conflict."
    nobody = storage_class("WaitForFirstConsumer", "kubernetes.io/no-provisioner")
    assert place(pod(), claim(), only("n2"), nobody).node == "n2"
    none_there = "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    assert place(pod(), claim(), None, nobody).reason == place(pod(), claim("9Gi"), only("n2"), nobody).reason == none_there
