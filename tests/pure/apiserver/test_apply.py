"""Server-side apply, the pure part: sets of fields, merging, owners, and the laws that hold for all of them."""

from __future__ import annotations

import doctest
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from podwire.apiserver import managed_fields, ownership
from podwire.apiserver.apply import Comparison, compare, faults, fields_of, merge, with_parents, without
from podwire.apiserver.managed_fields import Fields, canonical, difference, intersection, paths, union
from podwire.apiserver.merge_types import of_definition
from podwire.apiserver.ownership import Conflicts, Owner

Tree = dict[str, Any]
DEPLOYMENT = of_definition("io.k8s.api.apps.v1.Deployment")
POD = of_definition("io.k8s.api.core.v1.Pod")
SERVICE = of_definition("io.k8s.api.core.v1.Service")
ANN, BOB = Owner("ann", "Apply", "v1"), Owner("bob", "Apply", "v1")


def deployment(*containers: Tree, **spec: Any) -> Tree:
    pod: Tree = {"spec": {"containers": list(containers)}} if containers else {}
    return {"metadata": {"name": "web"}, "spec": {**spec, **({"template": pod} if pod else {})}}


def text(fields: Fields) -> list[str]:
    return list(paths(fields))


# Sets ----------------------------------------------------------------------------------------------------------------------

_steps = st.sampled_from(["f:a", "f:b", 'k:{"name":"x"}', 'v:"y"'])
_paths = st.lists(_steps, min_size=1, max_size=4)


def _set_of(members: list[list[str]]) -> Fields:
    made: Tree = {}
    for member in members:
        node = made
        for step in member:
            node = node.setdefault(step, {"-": None})
        node["."] = {}

    def cleaned(node: Tree) -> Tree:
        kept = {key: cleaned(one) for key, one in node.items() if key not in ("-", ".")}
        return kept | ({".": {}} if "." in node and kept else {})

    return cleaned(made)


_sets = st.lists(_paths, max_size=6).map(_set_of)


@given(_sets, _sets)
def test_the_algebra_is_that_of_sets_of_paths(one: Fields, other: Fields) -> None:
    left, right = set(text(one)), set(text(other))
    assert set(text(union(one, other))) == left | right
    assert set(text(difference(one, other))) == left - right
    assert set(text(intersection(one, other))) == left & right
    assert union(difference(one, other), intersection(one, other)) == one
    assert bool(difference(one, other)) == bool(left - right)


def test_sets_of_clients_are_spelled_our_way() -> None:
    assert canonical({'k:{"protocol": "TCP", "port": 80}': {}}) == {'k:{"port":80,"protocol":"TCP"}': {}}
    bottomless: Tree = {}
    for _ in range(1000):
        bottomless = {"f:a": bottomless}
    for bad in ([], {"f:a": []}, {"x:a": {}}, {"k:[]": {}}, {"k:{": {}}, {"i:a": {}}, {"": {}}, bottomless):
        with pytest.raises(ValueError):  # noqa: PT011 (of JSON, too)
            canonical(bad)


def test_the_docstrings_tell_the_truth() -> None:
    result = doctest.testmod(managed_fields)
    assert (result.failed, result.attempted > 0) == (0, True)


# What a value consists of ----------------------------------------------------------------------------------------------------


def test_lists_are_owned_by_their_type() -> None:
    """Ports by two keys, one of which has a default; finalizers by value; selectors and commands as a whole."""
    ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53}]
    tree = deployment({"name": "c", "ports": ports, "command": ["a"]}, selector={"matchLabels": {"a": "b"}})
    tree["metadata"]["finalizers"] = ["x.io/y"]
    container = '.spec.template.spec.containers[name="c"]'
    assert text(fields_of(DEPLOYMENT, tree)) == [
        '.metadata.finalizers[="x.io/y"]',
        ".spec.selector",
        container,
        f"{container}.command",
        f"{container}.name",
        f'{container}.ports[containerPort=53,protocol="TCP"]',
        f'{container}.ports[containerPort=53,protocol="TCP"].containerPort',
        f'{container}.ports[containerPort=53,protocol="UDP"]',
        f'{container}.ports[containerPort=53,protocol="UDP"].containerPort',
        f'{container}.ports[containerPort=53,protocol="UDP"].protocol',
    ]


def test_what_nobody_owns() -> None:
    tree = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "u", "generation": 1, "generateName": "g"}}
    assert text(fields_of(POD, tree)) == [".metadata.generateName"]


def test_what_is_no_configuration() -> None:
    container = {"name": "c", "env": [{"name": "A"}, {"name": "A"}, {"value": "x"}, None], "imge": "x"}
    assert list(faults(DEPLOYMENT, deployment(container, repicas=1))) == [
        ".spec.repicas: field not declared in schema",
        '.spec.template.spec.containers[name="c"].env: duplicate entries for key [name="A"]',
        '.spec.template.spec.containers[name="c"].env: element 2: associative list with keys has an element that omits all key fields '
        '["name"] (and doesn\'t have default values for any key fields)',
        '.spec.template.spec.containers[name="c"].env: element 3: associative list with keys may not have a null element',
        '.spec.template.spec.containers[name="c"].imge: field not declared in schema',
    ]


# Merging ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("live", "applied", "merged"),
    [
        ("abc", "abc", "abc"),
        ("abc", "", "abc"),
        ("", "ba", "ba"),
        ("abc", "d", "abcd"),
        ("abc", "db", "adbc"),
        ("abc", "ca", "bca"),
        ("axb", "ba", "xba"),
        ("xay", "zab", "xzayb"),
    ],
)
def test_the_applied_order_stands(live: str, applied: str, merged: str) -> None:
    def tree(names: str) -> Tree:
        return {"metadata": {"finalizers": list(names)}} if names else {"metadata": {}}

    assert merge(POD, tree(live), tree(applied)) == tree(merged)


def test_merging_by_type() -> None:
    live = deployment(
        {"name": "a", "image": "1", "env": [{"name": "A", "value": "1"}]}, {"name": "b"}, selector={"matchLabels": {"a": "b"}}
    )
    applied = deployment({"name": "a", "env": [{"name": "B"}]}, selector={"matchLabels": {"c": "d"}}, paused=None)
    merged = merge(DEPLOYMENT, live, applied)
    assert merged["spec"]["selector"] == {"matchLabels": {"c": "d"}}, "atomic"
    assert merged["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "image": "1", "env": [{"name": "A", "value": "1"}, {"name": "B"}]},
        {"name": "b"},
    ]
    assert merged["spec"]["paused"] is None, "what is said to be nothing is said"


# Owners ------------------------------------------------------------------------------------------------------------------------


def applied(live: Tree, entries: list[Tree], config: Tree, owner: Owner = ANN, *, force: bool = False) -> tuple[Tree, list[Tree]]:
    laid = ownership.applied(DEPLOYMENT, entries, live, config, owner, force=force)
    return laid.tree, laid.owned.entries


def owned(entries: list[Tree]) -> dict[str, list[str]]:
    return {entry["manager"]: text(entry["fieldsV1"]) for entry in entries}


def test_what_is_no_longer_applied_goes_unless_it_is_somebodys() -> None:
    one = deployment({"name": "c", "image": "1", "tty": True}, replicas=1, paused=True)
    live, entries = applied({}, [], one)
    live, entries = applied(live, entries, deployment({"name": "c", "image": "1"}, replicas=1), BOB)
    live, entries = applied(live, entries, deployment(paused=True))
    assert live["spec"] == {"paused": True, "replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "1"}]}}}
    container = '.spec.template.spec.containers[name="c"]'
    assert owned(entries) == {"ann": [".spec.paused"], "bob": [".spec.replicas", container, f"{container}.image", f"{container}.name"]}
    live, entries = applied(live, entries, {"metadata": {"name": "web"}}, BOB)
    assert live["spec"] == {"paused": True}
    assert owned(entries) == {"ann": [".spec.paused"]}


def test_what_nobody_owns_stays() -> None:
    """Defaults below an element that is still applied."""
    live, entries = applied({}, [], deployment({"name": "c", "image": "1", "tty": True}))
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    live, entries = applied(live, entries, deployment({"name": "c", "image": "1"}))
    assert live["spec"]["template"]["spec"]["containers"] == [{"name": "c", "image": "1", "imagePullPolicy": "Always"}]


def test_conflicts_are_named_by_owner_and_path() -> None:
    live, entries = applied({}, [], deployment(replicas=1, paused=True))
    scaled = ownership.updated(
        DEPLOYMENT, entries, live, deployment(replicas=3, paused=True), Owner("kubectl", "Update", "apps/v1", "scale")
    ).entries
    assert owned(scaled) == {"ann": [".spec.paused"], "kubectl": [".spec.replicas"]}
    live = deployment(replicas=3, paused=True)
    with pytest.raises(Conflicts) as one:
        applied(live, scaled, deployment(replicas=2))
    assert str(one.value) == 'Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas'
    with pytest.raises(Conflicts) as two:
        applied(live, scaled, deployment(replicas=2, paused=False), BOB)
    assert str(two.value) == (
        'Apply failed with 2 conflicts: conflicts with "ann":\n- .spec.paused\n'
        'conflicts with "kubectl" with subresource "scale" using apps/v1:\n- .spec.replicas'
    )
    live, entries = applied(live, scaled, deployment(replicas=2, paused=False), BOB, force=True)
    assert live["spec"] == {"replicas": 2, "paused": False}
    assert owned(entries) == {"bob": [".spec.paused", ".spec.replicas"]}
    # The same value is no conflict: it is shared.
    _, entries = applied(live, entries, deployment(replicas=2))
    assert owned(entries) == {"bob": [".spec.paused", ".spec.replicas"], "ann": [".spec.replicas"]}


def test_what_was_there_before_the_first_apply_is_owned() -> None:
    live = deployment(replicas=1, paused=True)
    with pytest.raises(Conflicts, match=r'conflict with "before-first-apply" using v1: \.spec\.replicas'):
        applied(live, [], deployment(replicas=2))
    _, entries = applied(live, [], deployment(replicas=1))
    assert owned(entries) == {"before-first-apply": [".spec.paused", ".spec.replicas"], "ann": [".spec.replicas"]}


def test_kubectl_goes_on_where_client_side_apply_ended() -> None:
    text_of_old = '{"spec": {"replicas": 1}}'
    live = deployment(replicas=1, paused=True)
    live["metadata"]["annotations"] = {ownership.LAST_APPLIED: text_of_old}
    entries = ownership.created(DEPLOYMENT, [], live, Owner("kubectl-client-side-apply", "Update", "apps/v1")).entries
    kubectl = Owner("kubectl", "Apply", "apps/v1")
    tree, _ = applied(live, entries, deployment(replicas=2), kubectl)
    assert tree["spec"]["replicas"] == 2
    with pytest.raises(Conflicts, match=r"\.spec\.paused"):
        applied(live, entries, deployment(replicas=2, paused=False), kubectl)
    with pytest.raises(Conflicts, match=r"\.spec\.replicas"):
        applied(live, entries, deployment(replicas=2))


def test_too_many_updaters_become_one() -> None:
    entries: list[Tree] = []
    live: Tree = deployment()
    for number in range(14):
        next_one = deployment()
        next_one["metadata"]["labels"] = {**live["metadata"].get("labels", {}), f"l{number}": "x"}
        owner = Owner(f"m{number}", "Update", "apps/v1")
        made = (
            ownership.updated(DEPLOYMENT, entries, live, next_one, owner) if entries else ownership.created(DEPLOYMENT, [], next_one, owner)
        )
        entries, live = ownership.stamped(made, f"2026-01-01T00:00:{number:02}Z"), next_one
    assert [entry["manager"] for entry in entries] == ["ancient-changes", *(f"m{number}" for number in range(5, 14))]
    assert [path for path in owned(entries)["ancient-changes"] if "labels." in path] == [f".metadata.labels.l{n}" for n in range(5)]


def test_entries_of_clients() -> None:
    stored = ownership.created(DEPLOYMENT, [], deployment(replicas=1), ANN).entries
    assert ownership.basis(None, stored) == stored
    assert ownership.basis([{}], stored) == []
    assert ownership.basis([{}], stored, "status") == stored
    sent = [stored[0] | {"manager": "other", "fieldsV1": {"f:spec": {'k:{"b": 1, "a": 2}': {}}}}]
    assert ownership.basis(sent, stored)[0]["fieldsV1"] == {"f:spec": {'k:{"a":2,"b":1}': {}}}
    for bad in ([{"manager": "x"}], [sent[0] | {"operation": "Steal"}], [sent[0] | {"fieldsV1": {"z": 1}}], ["x"]):
        assert ownership.basis(bad, stored) == stored


# Laws --------------------------------------------------------------------------------------------------------------------------

_word = st.sampled_from(["a", "b", "c"])
_words = st.dictionaries(_word, _word, min_size=1, max_size=3)


def _keyed(elements: st.SearchStrategy[Tree], *keys: str) -> st.SearchStrategy[list[Tree]]:
    return st.lists(elements, min_size=1, max_size=3, unique_by=lambda one: tuple(one[key] for key in keys))


def _some(required: dict[str, Any] | None = None, **optional: Any) -> st.SearchStrategy[Tree]:
    return st.fixed_dictionaries(required or {}, optional=optional)


_env = _keyed(_some({"name": _word}, value=_word), "name")
_ports = _keyed(
    _some({"containerPort": st.integers(1, 2), "protocol": st.sampled_from(["TCP", "UDP"])}, name=_word), "containerPort", "protocol"
)
_containers = _keyed(
    _some({"name": _word}, image=_word, env=_env, ports=_ports, command=st.lists(_word, min_size=1, max_size=2), tty=st.booleans()), "name"
)
_pod = _some(containers=_containers, nodeSelector=_words, hostname=_word).filter(bool)
_spec = _some(replicas=st.integers(0, 2), template=_some(spec=_pod).filter(bool), selector=_some({"matchLabels": _words}))
_metadata = _some({"name": st.just("web")}, labels=_words, finalizers=st.lists(_word, min_size=1, unique=True))
_configs = _some({"metadata": _metadata}, spec=_spec.filter(bool))


def _unordered(value: Any) -> Any:
    """A value whose lists of elements have no order."""
    if isinstance(value, dict):
        return {key: _unordered(one) if key != "command" else one for key, one in value.items()}
    if isinstance(value, list):
        return sorted((_unordered(one) for one in value), key=repr)
    return value


@given(_configs)
def test_who_is_alone_owns_what_they_apply(config: Tree) -> None:
    tree, entries = applied({}, [], config)
    assert tree == config
    assert [entry["fieldsV1"] for entry in entries] == ([fields_of(DEPLOYMENT, config)] if fields_of(DEPLOYMENT, config) else [])


@given(_configs, _configs)
def test_applying_twice_changes_nothing(live: Tree, config: Tree) -> None:
    tree, entries = applied(*applied({}, [], live, BOB), config, force=True)
    assert applied(tree, entries, config) == (tree, entries)


@given(_configs, _configs)
@settings(max_examples=200)
def test_removing_everything_gives_back_what_others_applied(live: Tree, config: Tree) -> None:
    tree, entries = applied({}, [], live, BOB)
    try:
        more, both = applied(tree, entries, config)
    except Conflicts as conflicts:
        event(f"{len(conflicts.found)} conflicts")
        return
    back, rest = applied(more, both, {"metadata": {"name": "web"}})
    assert _unordered(back) == _unordered(tree)
    assert rest == entries


@given(_configs, _configs)
@settings(max_examples=200)
def test_a_comparison_tells_all_differences(old: Tree, new: Tree) -> None:
    found = compare(DEPLOYMENT, old, new)
    before, after = set(text(fields_of(DEPLOYMENT, old))), set(text(fields_of(DEPLOYMENT, new)))
    assert before - after <= set(text(found.removed))
    assert after - before <= set(text(found.added))
    assert set(text(found.modified)) <= before & after
    assert compare(DEPLOYMENT, new, new) == Comparison({}, {}, {})
    # An updater owns what they changed, and the former owner the rest.
    entries = ownership.created(DEPLOYMENT, [], old, BOB).entries
    both = {entry["manager"]: entry["fieldsV1"] for entry in ownership.updated(DEPLOYMENT, entries, old, new, ANN).entries}
    assert not intersection(both.get("ann", {}), both.get("bob", {}))
    if entries:
        assert after <= set(text(union(both.get("ann", {}), both.get("bob", {}))))


@given(_configs, _configs)
def test_what_is_taken_out_is_gone_and_the_rest_is_there(tree: Tree, other: Tree) -> None:
    gone = fields_of(DEPLOYMENT, other)
    left = without(DEPLOYMENT, tree, gone) or {}
    assert not set(text(fields_of(DEPLOYMENT, left))) & set(text(gone))
    assert set(text(fields_of(DEPLOYMENT, left))) <= set(text(fields_of(DEPLOYMENT, tree)))


@given(_configs, _configs)
def test_nothing_is_changed_in_place(live: Tree, config: Tree) -> None:
    said = repr((live, config))
    tree, entries = applied({}, [], live, BOB)
    noted = repr((tree, entries))
    applied(tree, entries, config, force=True)
    ownership.updated(DEPLOYMENT, entries, tree, config, ANN)
    assert (repr((live, config)), repr((tree, entries))) == (said, noted)


@given(_configs, _configs)
@settings(max_examples=200)
def test_what_is_forced_stands_and_all_else_is_left_alone(live: Tree, config: Tree) -> None:
    tree, entries = applied({}, [], live, BOB)
    more, both = applied(tree, entries, config, force=True)
    stands = compare(DEPLOYMENT, config, more)
    assert (stands.removed, stands.modified) == ({}, {})
    touched = compare(DEPLOYMENT, tree, more)
    assert set(text(touched.changed)) <= set(text(with_parents(DEPLOYMENT, fields_of(DEPLOYMENT, config))))
    assert touched.removed == {}
    # Each field is somebody's, and what changed is no longer the other's.
    everybody = union(*(entry["fieldsV1"] for entry in both)) if len(both) == 2 else both[0]["fieldsV1"] if both else {}
    assert set(text(fields_of(DEPLOYMENT, more))) <= set(text(everybody))
    others = next((entry["fieldsV1"] for entry in both if entry["manager"] == "bob"), {})
    assert intersection(others, touched.changed) == {}
