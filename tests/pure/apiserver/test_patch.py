"""Patches: the examples of the RFCs and of Kubernetes' documentation, and slow references written straight from the rules."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.apiserver.kind import Kind
from podwire.apiserver.patch import PatchError, json_patch, merge_patch, strategic_merge_patch
from podwire.apiserver.registry import REGISTRY

_scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
_trees = st.recursive(
    _scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3), max_leaves=12
)


# JSON Merge Patch --------------------------------------------------------------------------------------------------------


def _reference_merge(target: Any, patch: Any) -> Any:
    """The pseudocode of RFC 7386, section 2."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = _reference_merge(target.get(name), value)
        return target
    return patch


@given(_trees, _trees)
def test_merge_patch_is_the_rfcs(tree: Any, patch: Any) -> None:
    before = copy.deepcopy(tree)
    assert merge_patch(tree, patch) == _reference_merge(copy.deepcopy(tree), copy.deepcopy(patch))
    assert tree == before


@pytest.mark.parametrize(
    ("tree", "patch", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_examples(tree: Any, patch: Any, result: Any) -> None:
    assert merge_patch(tree, patch) == result


# JSON Patch --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "operations", "result"),
    [  # RFC 6902, appendix A
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo", "foo": "bar"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        (
            {"baz": "qux", "foo": ["a", 2, "c"]},
            [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
            {"baz": "qux", "foo": ["a", 2, "c"]},
        ),
        ({"foo": "bar"}, [{"op": "add", "path": "/child", "value": {"grandchild": {}}}], {"foo": "bar", "child": {"grandchild": {}}}),
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}], {"foo": "bar", "baz": "qux"}),
        ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
        ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc", "def"]}], {"foo": ["bar", ["abc", "def"]]}),
        (
            {"foo": {"a": 1}},
            [{"op": "copy", "from": "/foo", "path": "/bar"}, {"op": "add", "path": "/bar/b", "value": 2}],
            {"foo": {"a": 1}, "bar": {"a": 1, "b": 2}},
        ),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": None}, [{"op": "test", "path": "/a", "value": None}], {"a": None}),
    ],
)
def test_json_patch_examples(tree: Any, operations: Any, result: Any) -> None:
    before = copy.deepcopy(tree)
    assert json_patch(tree, operations) == result
    assert tree == before


@pytest.mark.parametrize(
    ("operations", "status", "message"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], 422, "testing value /a failed: test failed"),
        ([{"op": "test", "path": "/a", "value": True}], 422, "test failed"),
        ([{"op": "remove", "path": "/x"}], 422, 'remove operation does not apply: doc is missing path: "/x": missing value'),
        ([{"op": "replace", "path": "/x", "value": 1}], 422, "replace operation does not apply"),
        ([{"op": "add", "path": "/x/y", "value": 1}], 422, "add operation does not apply"),
        ([{"op": "add", "path": "/l/9", "value": 1}], 422, "Unable to access invalid index: 9"),
        ([{"op": "add", "path": "/l/01", "value": 1}], 422, "is no index"),
        ([{"op": "add", "path": "/l/-1", "value": 1}], 422, "is no index"),
        ([{"op": "remove", "path": "/l/-"}], 422, "is no index"),
        ([{"op": "add", "path": "/a"}], 422, "missing value"),
        ([{"op": "jump", "path": "/a"}], 422, "Unexpected kind: jump"),
        ([{"op": "move", "from": "/l", "path": "/l/0"}], 422, "lies in"),
        ([{"op": "copy", "path": "/b"}], 422, "failed to decode from: operation, missing from field: missing value"),
        ([{"path": 1}], 422, "operation missing path field: missing value"),
        ([1], 400, "an operation of a JSON patch is an object"),
        ([{"op": "add", "path": "a", "value": 1}], 422, 'doc is missing path: "a": missing value'),
        ({}, 400, "is a list of operations"),
        ([{"op": "test", "path": "/a", "value": 1}] * 10001, 413, "The allowed maximum operations in a JSON patch is 10000, got 10001"),
    ],
)
def test_json_patches_that_fail(operations: Any, status: int, message: str) -> None:
    tree = {"a": 1, "l": [1]}
    with pytest.raises(PatchError) as raised:
        json_patch(
            tree,
            [{"op": "add", "path": "/z", "value": 1}, *operations] if isinstance(operations, list) and len(operations) == 1 else operations,
        )
    assert (raised.value.status, message in str(raised.value)) == (status, True)
    assert tree == {"a": 1, "l": [1]}


def test_copies_of_copies_have_an_end() -> None:
    """Forty operations that double a value each would be a terabyte: refused before."""
    bomb = [{"op": "copy", "from": "/data", "path": f"/data/{number}"} for number in range(40)]
    with pytest.raises(PatchError, match=r"accumulated size increase of JSON patch copy is \d+, exceeding the limit 3145728") as raised:
        json_patch({"data": {"a": "x" * 1000}}, bomb)
    assert raised.value.status == 422
    assert len(json_patch({"data": {"a": "x" * 1000}}, bomb[:8])["data"]) == 9


def test_long_lists_are_merged_element_by_element() -> None:
    """Each is looked up, and not searched for among all others: that would be minutes of a server's time."""
    count = 30_000
    names = [f"A{number}" for number in range(count)]
    env = [{"name": name, "value": "x"} for name in names]
    patch = {"env": [{"name": name, "value": "y"} for name in reversed(names)], "$setElementOrder/env": [{"name": name} for name in names]}
    patch["env"].reverse()
    made = strategic_merge_patch(_kind("pods"), _with_env(env), {"spec": {"containers": [{"name": "c", **patch}]}})
    assert made["spec"]["containers"][0]["env"] == [{"name": name, "value": "y"} for name in names]
    finalizers = {"metadata": {"$deleteFromPrimitiveList/finalizers": names}}
    kept = strategic_merge_patch(_kind("pods"), {"metadata": {"finalizers": [*names, "kept"]}}, finalizers)
    assert kept["metadata"]["finalizers"] == ["kept"]


def _with_env(env: list[Any]) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "env": env}]}}


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"containers": [{"name": {"a": 1}}]}},
        {"spec": {"containers": [{"name": "c", "env": [{"name": []}]}]}},
        {"metadata": {"finalizers": [["a"]]}},
    ],
)
def test_what_tells_no_element_from_others(patch: dict[str, Any]) -> None:
    tree = _with_env([{"name": "A"}]) | {"metadata": {"finalizers": ["a"]}}
    with pytest.raises(PatchError, match="tells no element of a list from others"):
        strategic_merge_patch(_kind("pods"), tree, patch)


def _difference(old: Any, new: Any, path: str) -> list[dict[str, Any]]:
    """A patch that makes ``new`` of ``old``, field by field."""
    if isinstance(old, dict) and isinstance(new, dict):
        steps = [{"op": "remove", "path": f"{path}/{key}"} for key in old if key not in new]
        for key, value in new.items():
            steps += (
                _difference(old[key], value, f"{path}/{key}") if key in old else [{"op": "add", "path": f"{path}/{key}", "value": value}]
            )
        return steps
    return [] if old == new and type(old) is type(new) else [{"op": "replace", "path": path, "value": new}]


@given(_trees, _trees)
def test_json_patch_takes_one_tree_to_any_other(old: Any, new: Any) -> None:
    assert json_patch(old, _difference(old, new, "")) == new


# Strategic merge patch -----------------------------------------------------------------------------------------------------


def _kind(plural: str) -> Kind:
    return next(one for one in REGISTRY if one.plural == plural)


def _pod(tree: Any, patch: Any) -> Any:
    return strategic_merge_patch(_kind("pods"), {"spec": tree}, {"spec": patch})["spec"]


_A, _B, _C, _D = ({"name": name, "image": name} for name in "abcd")


@pytest.mark.parametrize(
    ("old", "patch", "new"),
    [
        # The documentation's first case: a list with a merge key merges, a new element comes in.
        (
            {"containers": [{"name": "nginx", "image": "nginx-1.0"}]},
            {"containers": [{"name": "log-tailer", "image": "log-tailer-1.0"}]},
            {"containers": [{"name": "log-tailer", "image": "log-tailer-1.0"}, {"name": "nginx", "image": "nginx-1.0"}]},
        ),
        # $patch: replace of a list.
        ({"containers": [_A]}, {"containers": [_B, {"$patch": "replace"}]}, {"containers": [_B]}),
        # $patch: delete of an element.
        ({"containers": [_A, _B]}, {"containers": [{"$patch": "delete", "name": "a"}]}, {"containers": [_B]}),
        # $patch: replace of a map.
        (
            {"securityContext": {"runAsUser": 1, "fsGroup": 2}},
            {"securityContext": {"$patch": "replace", "fsGroup": 3}},
            {"securityContext": {"fsGroup": 3}},
        ),
        # $patch: delete of a map.
        ({"securityContext": {"runAsUser": 1}}, {"securityContext": {"$patch": "delete"}}, {"securityContext": {}}),
        # An atomic list is replaced.
        (
            {"containers": [{"name": "a", "command": ["x", "y"]}]},
            {"containers": [{"name": "a", "command": ["z"]}]},
            {"containers": [{"name": "a", "command": ["z"]}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]}, {"tolerations": [{"key": "b"}]}),
        # A null removes, at any depth; in a new element it is nothing.
        ({"containers": [_A]}, {"containers": [{"name": "a", "image": None}]}, {"containers": [{"name": "a"}]}),
        ({"containers": [_A]}, {"containers": [{"name": "b", "image": None}]}, {"containers": [{"name": "b"}, _A]}),
        ({"nodeSelector": {"a": "1"}}, {"nodeSelector": None}, {}),
        ({}, {"nodeSelector": {"a": "1", "b": None}}, {"nodeSelector": {"a": "1"}}),
        # $setElementOrder: the writer's order, others keep their places.
        ({"containers": [_A, _B, _C]}, {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}, {"containers": [_B, _C, _A]}),
        (
            {"containers": [_A, _B]},
            {"$setElementOrder/containers": [{"name": "a"}, {"name": "d"}, {"name": "b"}], "containers": [_D]},
            {"containers": [_A, _D, _B]},
        ),
        (
            {"containers": [_A, _B, _C]},
            {"$setElementOrder/containers": [{"name": "a"}, {"name": "c"}], "containers": [{"name": "b", "$patch": "delete"}]},
            {"containers": [_A, _C]},
        ),
        ({}, {"$setElementOrder/containers": [{"name": "a"}], "containers": [_A]}, {"containers": [_A]}),
        ({}, {"$setElementOrder/containers": [{"name": "a"}]}, {}),
        # $retainKeys: what is not named goes.
        (
            {"volumes": [{"name": "v", "emptyDir": {}}]},
            {"volumes": [{"name": "v", "hostPath": {"path": "/x"}, "$retainKeys": ["name", "hostPath"]}]},
            {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]},
        ),
        # Lists of lists: ports within containers merge by containerPort.
        (
            {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "http"}]}]},
            {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]}]},
            {"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}, {"containerPort": 81}]}]},
        ),
    ],
)
def test_strategic_merge_of_a_pod(old: Any, patch: Any, new: Any) -> None:
    before = copy.deepcopy(old)
    assert _pod(old, patch) == new
    assert old == before


def test_sets_of_plain_values() -> None:
    """metadata.finalizers is a set."""
    kind = _kind("configmaps")

    def merged(patch: Any) -> Any:
        return strategic_merge_patch(kind, {"metadata": {"finalizers": ["a", "b", "c"]}}, {"metadata": patch})["metadata"].get("finalizers")

    assert merged({"finalizers": ["d", "a"]}) == ["d", "a", "b", "c"]
    assert merged({"$deleteFromPrimitiveList/finalizers": ["b"]}) == ["a", "c"]
    assert merged({"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["c", "b"]}) == ["c", "b"]
    assert merged({"finalizers": None}) is None


def test_deployment_strategy_retains_keys() -> None:
    old = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"type": "Recreate", "$retainKeys": ["type"]}}}
    assert strategic_merge_patch(_kind("deployments"), old, patch) == {"spec": {"strategy": {"type": "Recreate"}}}


def test_service_ports_merge_by_port_and_conditions_by_type() -> None:
    old = {"spec": {"ports": [{"port": 80, "nodePort": 30080}, {"port": 443}]}}
    patch = {"spec": {"ports": [{"port": 80, "targetPort": 8080}], "$setElementOrder/ports": [{"port": 80}]}}
    assert strategic_merge_patch(_kind("services"), old, patch)["spec"]["ports"] == [
        {"port": 80, "nodePort": 30080, "targetPort": 8080},
        {"port": 443},
    ]
    old = {"status": {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}]}}
    patch = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    merged = strategic_merge_patch(_kind("pods"), old, patch)["status"]["conditions"]
    assert merged == [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]


def test_lists_of_kinds_without_merge_keys_are_replaced() -> None:
    old = {"spec": {"instances": ["a", "b"]}}
    assert strategic_merge_patch(_kind("targetpools"), old, {"spec": {"instances": ["c"]}}) == {"spec": {"instances": ["c"]}}


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({"containers": [{"image": "x"}]}, "does not contain declared merge key: name"),
        ({"containers": [{"$patch": "delete"}]}, "does not contain declared merge key: name"),
        ({"securityContext": {"$patch": "explode"}}, "Unknown patch type found: explode"),
        (
            {"containers": [_B, _A], "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}]},
            "doesn't match $setElementOrder/containers list",
        ),
        ({"containers": [_D], "$setElementOrder/containers": [{"name": "a"}]}, "doesn't match"),
        ({"volumes": [{"name": "v", "hostPath": {}, "$retainKeys": ["name"]}]}, "invalid patch format of $retainKeys"),
        ({"$setElementOrder/containers": 1}, "is a list"),
    ],
)
def test_strategic_patches_that_are_none(patch: Any, message: str) -> None:
    with pytest.raises(PatchError) as raised:
        _pod({"containers": [_A], "volumes": [{"name": "v", "emptyDir": {}}], "securityContext": {"runAsUser": 1}}, patch)
    assert message in str(raised.value)
    assert raised.value.status == 400


# The reference: containers as a map from name to fields, merged in the plainest way.

_names = st.sampled_from(["a", "b", "c", "d"])
_fields = st.dictionaries(st.sampled_from(["image", "workingDir"]), st.sampled_from(["x", "y"]))
_elements = st.dictionaries(_names, _fields, max_size=4)
_changes = st.dictionaries(
    _names, st.none() | st.dictionaries(st.sampled_from(["image", "workingDir"]), st.none() | st.sampled_from(["x", "z"])), max_size=4
)


@given(_elements, _changes, st.permutations(["a", "b", "c", "d"]), st.booleans())
def test_strategic_merge_is_a_merge_of_maps(old: dict[str, Any], changes: dict[str, Any], order: list[str], ordered: bool) -> None:
    expected = copy.deepcopy(old)
    for name, change in changes.items():
        if change is None:
            expected.pop(name, None)
        else:
            merged = {**expected.get(name, {}), **change}
            expected[name] = {key: value for key, value in merged.items() if value is not None}
    known = [name for name in order if changes.get(name, {}) is not None] if ordered else list(changes)
    elements = (
        sorted(changes, key=known.index) if ordered and all(name in known for name in changes) else [n for n in known if n in changes]
    )
    elements += [name for name in changes if name not in elements]
    patch: dict[str, Any] = {
        "containers": [
            {"name": name, "$patch": "delete"} if changes[name] is None else {"name": name, **changes[name]} for name in elements
        ]
    }
    if ordered:
        patch["$setElementOrder/containers"] = [{"name": name} for name in known]
    result = _pod({"containers": [{"name": name, **fields} for name, fields in old.items()]}, patch).get("containers", [])
    assert {one["name"]: {key: value for key, value in one.items() if key != "name"} for one in result} == expected
    names = [one["name"] for one in result]
    if ordered:
        assert [name for name in names if name in known] == [name for name in known if name in names]
    rest = [name for name in names if name not in known and name not in changes]
    assert rest == [name for name in old if name in rest]
