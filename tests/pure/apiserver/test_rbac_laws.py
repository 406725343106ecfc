"""RBAC against a reference that looks at every binding and every rule, over random histories of roles and bindings."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.auth.rbac import Policy
from podwire.apiserver.auth.rules import Grants, question, single

Tree = dict[str, Any]

VERBS, GROUPS = st.sampled_from(["get", "list", "*"]), st.sampled_from(["", "apps", "*"])
RESOURCES = st.sampled_from(["pods", "pods/log", "pods/exec", "*/log", "*", "secrets"])
NAMES = st.sampled_from(["a", "b"])
URLS = st.sampled_from(["/healthz", "/api/*", "*", "/api/v1"])
NAMESPACES = st.sampled_from(["one", "two"])


def some(one: st.SearchStrategy[str], least: int = 1) -> st.SearchStrategy[list[str]]:
    return st.lists(one, min_size=least, max_size=2)


RULES = st.one_of(
    st.fixed_dictionaries({"verbs": some(VERBS), "apiGroups": some(GROUPS), "resources": some(RESOURCES), "resourceNames": some(NAMES, 0)}),
    st.fixed_dictionaries({"verbs": some(VERBS), "nonResourceURLs": some(URLS)}),
)
SUBJECTS = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(["User", "Group"]), "name": st.sampled_from(["x", "y"])}),
    st.fixed_dictionaries({"kind": st.just("ServiceAccount"), "name": st.just("sa"), "namespace": st.sampled_from(["one", "two", ""])}),
)
ROLE_NAMES = st.tuples(st.sampled_from(["", "one", "two"]), NAMES)
BINDINGS = st.fixed_dictionaries(
    {
        "roleRef": st.fixed_dictionaries({"kind": st.sampled_from(["Role", "ClusterRole"]), "name": NAMES}),
        "subjects": st.lists(SUBJECTS, max_size=3),
    }
)
STEPS = st.one_of(
    st.tuples(st.just("role"), ROLE_NAMES, st.lists(RULES, max_size=3)),
    st.tuples(st.just("no role"), ROLE_NAMES, st.none()),
    st.tuples(st.just("binding"), ROLE_NAMES, BINDINGS),
    st.tuples(st.just("no binding"), ROLE_NAMES, st.none()),
)
USERS = st.tuples(
    st.sampled_from(["x", "y", "system:serviceaccount:one:sa", "system:serviceaccount:two:sa"]),
    st.lists(st.sampled_from(["x", "y"]), max_size=2),
)
ASKED = st.one_of(
    st.builds(
        Attributes,
        st.sampled_from(["get", "list", "delete"]),
        st.sampled_from(["", "apps", "batch"]),
        st.sampled_from(["pods", "pods/log", "pods/exec", "secrets", "secrets/log"]),
        st.sampled_from(["", "one", "two"]),
        st.sampled_from(["", "a", "b", "c"]),
    ),
    st.builds(
        lambda verb, path: Attributes(verb, path=path), st.sampled_from(["get", "post"]), st.sampled_from(["/healthz", "/api", "/api/v1"])
    ),
)


def rule_allows(rule: Tree, asked: Attributes) -> bool:
    """The reference for one rule, from the documentation's words."""
    if not {"*", asked.verb} & set(rule["verbs"]):
        return False
    if asked.path:
        return any(
            url == "*" or url == asked.path or (url.endswith("*") and asked.path.startswith(url[:-1]))
            for url in rule.get("nonResourceURLs", ())
        )
    if not {"*", asked.group} & set(rule.get("apiGroups", ())):
        return False
    wanted = {"*", asked.resource} | ({"*/" + asked.resource.split("/")[1]} if "/" in asked.resource else set())
    if not wanted & set(rule.get("resources", ())):
        return False
    names = rule.get("resourceNames", ())
    return not names or asked.name in names


def is_subject(subject: Tree, namespace: str, user: str, groups: list[str]) -> bool:
    if subject["kind"] == "User":
        return bool(subject["name"] == user)
    if subject["kind"] == "Group":
        return subject["name"] in groups
    return user == f"system:serviceaccount:{subject['namespace'] or namespace}:{subject['name']}"


def reference(roles: Any, bindings: Any, user: str, groups: list[str], asked: Attributes) -> bool:
    for (namespace, _), binding in bindings.items():
        if namespace not in ("", asked.namespace):
            continue
        if not any(is_subject(one, namespace, user, groups) for one in binding["subjects"]):
            continue
        role = (namespace if binding["roleRef"]["kind"] == "Role" else "", binding["roleRef"]["name"])
        if any(rule_allows(rule, asked) for rule in roles.get(role, ())):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STEPS, USERS, ASKED), max_size=25))
def test_every_answer_is_that_of_the_reference(history: list[Any]) -> None:
    policy, roles, bindings = Policy(), {}, {}
    for (what, name, value), (user, groups), asked in history:
        match what:
            case "role":
                roles[name] = value
                policy.put_role(name, value)
            case "no role":
                roles.pop(name, None)
                policy.delete_role(name)
            case "binding":
                bindings[name] = value
                policy.put_binding(name, value)
            case "no binding":
                bindings.pop(name, None)
                policy.delete_binding(name)
        expected = reference(roles, bindings, user, groups, asked)
        assert policy.allows(user, groups, asked) is expected
        assert policy.decide(user, groups, asked).allowed is expected


@settings(max_examples=300, deadline=None)
@given(st.lists(RULES, max_size=3), st.lists(RULES, max_size=3), ASKED)
def test_who_has_the_rights_may_grant_them_and_nothing_more(held: list[Any], granted: list[Any], asked: Attributes) -> None:
    """What is not called an escalation allows nothing that the grantor may not do."""
    grants = Grants(held)
    if all(grants.allows(question(one)) for one in single(granted)) and Grants(granted).allows(asked):
        assert grants.allows(asked)
    assert all(grants.allows(question(one)) for one in single(held))


def test_what_escalates_is_told_as_upstream() -> None:
    policy = Policy()
    policy.put_role(("", "reader"), [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
    policy.put_binding(("", "b"), {"roleRef": {"kind": "ClusterRole", "name": "reader"}, "subjects": [{"kind": "User", "name": "bob"}]})
    wanted = [
        {"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["get", "list"]},
        {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["web"], "verbs": ["get"]},
    ]
    assert policy.escalation("bob", ["team", "system:authenticated"], "", wanted) == (
        'user "bob" (groups=["team" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:\n'
        '{APIGroups:[""], Resources:["pods"], Verbs:["list"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}\n'
        '{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["web"], Verbs:["get"]}\n'
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}'
    )
    assert policy.escalation("bob", [], "", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]) == ""
