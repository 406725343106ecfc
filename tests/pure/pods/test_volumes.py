"""Which files a volume has; how they are exchanged in one step."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects.core import ConfigMap, Container, Pod, PodSpec, ResourceRequirements, Secret
from podwire.objects.meta import ObjectMeta
from podwire.objects.volumes import (
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    KeyToPath,
    ObjectFieldSelector,
    ProjectedVolumeSource,
    ResourceFieldSelector,
    SecretProjection,
    SecretVolumeSource,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from podwire.pods import downward
from podwire.pods.environment import Sources, Unavailable
from podwire.pods.volumes import atomic, payload
from podwire.pods.volumes.payload import File
from podwire.pods.volumes.tokens import renew_at

LIMITED = Container(name="c", resources=ResourceRequirements(requests={"cpu": "1500m"}, limits={"memory": "64Mi"}))
POD = Pod(
    metadata=ObjectMeta(name="web", namespace="shop", uid="u", labels={"b": 'say "hi"', "a": "1"}),
    spec=PodSpec(node_name="n", containers=(LIMITED,)),
)
TOKEN = ServiceAccountTokenProjection(path="token")
SOURCES = Sources(
    {"map": ConfigMap(data={"a": "1", "b": "2"}, binary_data={"c": base64.b64encode(b"\xff").decode()})},
    {"secret": Secret(data={"key": base64.b64encode(b"hidden").decode()})},
    {TOKEN: "a.b.c"},
    {"cpu": "4", "memory": "8Gi"},
)


def files(volume: Volume) -> dict[str, tuple[bytes, int]]:
    return {path: (file.content, file.mode) for path, file in payload.payload(volume, POD, SOURCES).items()}


def test_all_keys_or_those_that_are_named() -> None:
    whole = Volume(name="v", config_map=ConfigMapVolumeSource(name="map"))
    assert files(whole) == {"a": (b"1", 0o644), "b": (b"2", 0o644), "c": (b"\xff", 0o644)}
    items = (KeyToPath(key="a", path="x/y", mode=0o400), KeyToPath(key="b", path="z"))
    some = Volume(name="v", config_map=ConfigMapVolumeSource(name="map", items=items, default_mode=0o600))
    assert files(some) == {"x/y": (b"1", 0o400), "z": (b"2", 0o600)}
    assert files(Volume(name="v", secret=SecretVolumeSource(secret_name="secret"))) == {"key": (b"hidden", 0o644)}


def test_a_projected_volume_has_the_files_of_all_its_sources() -> None:
    labels = DownwardAPIVolumeFile(path="labels", field_ref=ObjectFieldSelector(field_path="metadata.labels"))
    sources = (
        VolumeProjection(config_map=ConfigMapVolumeSource(name="map", items=(KeyToPath(key="a", path="same"),))),
        VolumeProjection(secret=SecretProjection(name="secret", items=(KeyToPath(key="key", path="same"),))),
        VolumeProjection(downward_api=DownwardAPIVolumeSource(items=(labels,))),
        VolumeProjection(service_account_token=TOKEN),
    )
    found = files(Volume(name="v", projected=ProjectedVolumeSource(sources=sources, default_mode=0o440)))
    assert found == {"same": (b"hidden", 0o440), "labels": (b'a="1"\nb="say \\"hi\\""', 0o440), "token": (b"a.b.c", 0o440)}
    assert payload.references([Volume(name="v", projected=ProjectedVolumeSource(sources=sources))]) == ({"map"}, {"secret"}, {TOKEN})


@pytest.mark.parametrize(
    ("volume", "words"),
    [
        (Volume(name="v", config_map=ConfigMapVolumeSource(name="none")), 'configmap "none" not found'),
        (Volume(name="v", secret=SecretVolumeSource(secret_name="none")), 'secret "none" not found'),
        (
            Volume(name="v", config_map=ConfigMapVolumeSource(name="map", items=(KeyToPath(key="x", path="x"),))),
            "configmap references non-existent config key: x",
        ),
        (
            Volume(name="v", secret=SecretVolumeSource(secret_name="secret", items=(KeyToPath(key="x", path="x"),))),
            "references non-existent secret key: x",
        ),
        (Volume(name="v", projected=ProjectedVolumeSource(sources=(VolumeProjection(),))), "a source of this kind is not made here"),
    ],
)
def test_what_cannot_be_had_is_said(volume: Volume, words: str) -> None:
    with pytest.raises(Unavailable, match=words):
        payload.payload(volume, POD, SOURCES)


def test_what_is_optional_may_be_missing() -> None:
    assert files(Volume(name="v", config_map=ConfigMapVolumeSource(name="none", optional=True))) == {}
    items = (KeyToPath(key="x", path="x"), KeyToPath(key="key", path="y"))
    assert files(Volume(name="v", secret=SecretVolumeSource(secret_name="secret", items=items, optional=True))) == {"y": (b"hidden", 0o644)}


@pytest.mark.parametrize(
    ("resource", "divisor", "amount"),
    [
        ("requests.cpu", "0", "2"),
        ("requests.cpu", "1m", "1500"),
        ("limits.cpu", "0", "4"),
        ("limits.memory", "1Mi", "64"),
        ("limits.memory", 0, "67108864"),
        ("requests.memory", "0", "0"),
    ],
)
def test_amounts_of_resources(resource: str, divisor: str | int, amount: str) -> None:
    selector = ResourceFieldSelector(container_name="c", resource=resource, divisor=divisor)
    assert downward.resource(POD, None, selector, SOURCES.allocatable) == amount


def test_tokens_are_renewed_in_time() -> None:
    assert renew_at(1000, 1000 + 3600) == 1000 + 2880
    assert renew_at(1000, 1000 + 1e6) == 1000 + 86400


# The step ----------------------------------------------------------------------------------------------------------------

names = st.lists(st.sampled_from(["a", "b", "c/d", "c/e"]), unique=True)
payloads = names.flatmap(
    lambda paths: st.fixed_dictionaries({path: st.builds(File, st.binary(max_size=3), st.sampled_from([0o600, 0o644])) for path in paths})
)


def seen(folder: Path) -> dict[str, bytes]:
    found = {}
    for root, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith("..")]
        found |= {str(Path(root, name).relative_to(folder)): Path(root, name).read_bytes() for name in files}
    return found


@given(st.lists(payloads, max_size=4))
def test_a_reader_sees_the_last_files_and_nothing_else(tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, File]]) -> None:
    folder = tmp_path_factory.mktemp("volume") / "v"
    for number, files in enumerate(history):
        atomic.write(folder, files, f"t{number}")
        assert seen(folder) == {path: file.content for path, file in files.items()}
        assert not atomic.write(folder, files, "again")
        assert len([name for name in os.listdir(folder) if name.startswith("..")]) == 2


def test_what_was_begun_and_not_ended_is_swept(tmp_path: Path) -> None:
    atomic.write(tmp_path, {"a": File(b"1", 0o644)}, "t")
    (tmp_path / "..t.half").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..t.half")
    atomic.write(tmp_path, {"a": File(b"2", 0o644)}, "u")
    assert seen(tmp_path) == {"a": b"2"}
    assert "..data" in os.listdir(tmp_path)
    assert len(os.listdir(tmp_path)) == 3
