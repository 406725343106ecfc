"""The roles and bindings that every cluster has from its first second, as literal tables.

Pure. Names and rules are upstream's, so that what is written for any cluster finds them here; ``system:podwire:*`` are this program's own.
A row of rules is ``verbs | group | resources``; ``core`` is the group without a name. Not here: storing them (``bootstrap_policy.py``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#default-roles-and-role-bindings
"""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
API_VERSION = f"{GROUP}/v1"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
BOOTSTRAPPING = "kubernetes.io/bootstrapping"
MASTERS, AUTHENTICATED, UNAUTHENTICATED = "system:masters", "system:authenticated", "system:unauthenticated"

_WORDS = {
    "READ": "get list watch",
    "CHANGE": "create delete deletecollection patch update",
    "ALL": "create delete deletecollection get list patch update watch",
    "ANY": "*",
}

_VIEWED = """
READ | core | configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers
READ | core | replicationcontrollers/scale serviceaccounts services services/status
READ | core | bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas
READ | core | resourcequotas/status namespaces
READ | discovery.k8s.io | endpointslices
READ | apps | controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets
READ | apps | replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status
READ | autoscaling | horizontalpodautoscalers horizontalpodautoscalers/status
READ | batch | cronjobs cronjobs/status jobs jobs/status
READ | extensions | daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status networkpolicies
READ | extensions | replicasets replicasets/scale replicasets/status replicationcontrollers/scale
READ | policy | poddisruptionbudgets poddisruptionbudgets/status
READ | networking.k8s.io | ingresses ingresses/status networkpolicies
"""
_EDITED = """
READ | core | pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy
impersonate | core | serviceaccounts
CHANGE | core | pods pods/attach pods/exec pods/portforward pods/proxy
create | core | pods/eviction serviceaccounts/token
CHANGE | core | configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets serviceaccounts
CHANGE | core | services services/proxy
CHANGE | apps | daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale
CHANGE | autoscaling | horizontalpodautoscalers
CHANGE | batch | cronjobs jobs
CHANGE | extensions | daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale
CHANGE | extensions | replicationcontrollers/scale
CHANGE | policy | poddisruptionbudgets
CHANGE | networking.k8s.io | ingresses networkpolicies
ALL | coordination.k8s.io | leases
"""
_NODE = """
create | authentication.k8s.io | tokenreviews
create | authorization.k8s.io | localsubjectaccessreviews subjectaccessreviews
READ | core | services
create get list watch | core | nodes
patch update | core | nodes nodes/status
create patch update | core | events
create patch update | events.k8s.io | events
READ create delete | core | pods
patch update | core | pods/status
create | core | pods/eviction
READ | core | configmaps secrets
get | core | persistentvolumeclaims persistentvolumes endpoints
create get list watch | certificates.k8s.io | certificatesigningrequests
create delete get patch update | coordination.k8s.io | leases
get | storage.k8s.io | volumeattachments
create | core | serviceaccounts/token
delete | certificates.k8s.io | certificatesigningrequests
patch update | certificates.k8s.io | certificatesigningrequests/status
sign | certificates.k8s.io | signers | kubernetes.io/*
get patch update | core | persistentvolumeclaims/status
READ | storage.k8s.io | csidrivers
create delete get patch update | storage.k8s.io | csinodes
READ | node.k8s.io | runtimeclasses
"""
_SCHEDULER = """
create patch update | core events.k8s.io | events
create list watch | coordination.k8s.io | leases
get patch update | coordination.k8s.io | leases | kube-scheduler
READ | core | nodes namespaces
delete get list watch | core | pods
create | core | bindings pods/binding
patch update | core | pods/status
READ | core | replicationcontrollers services persistentvolumeclaims persistentvolumes
READ | apps extensions | replicasets
READ | apps | statefulsets
READ | policy | poddisruptionbudgets
create | authentication.k8s.io | tokenreviews
create | authorization.k8s.io | subjectaccessreviews
READ | storage.k8s.io | csidrivers csinodes csistoragecapacities storageclasses volumeattachments
"""
_CONTROLLER_MANAGER = """
create patch update | core events.k8s.io | events
create list watch | coordination.k8s.io | leases
get patch update | coordination.k8s.io | leases | kube-controller-manager
create | core | secrets serviceaccounts
delete | core | secrets
get | core | configmaps namespaces secrets serviceaccounts
update | core | secrets serviceaccounts
create | authentication.k8s.io | tokenreviews
create | authorization.k8s.io | subjectaccessreviews
list watch | * | *
create | core | serviceaccounts/token
delete | certificates.k8s.io | certificatesigningrequests
patch update | certificates.k8s.io | certificatesigningrequests/status
sign | certificates.k8s.io | signers | kubernetes.io/*
"""
# The controllers of this program write what their loops need. They end no node and no Namespace.
_OWN_CONTROLLERS = """
READ | * | *
CHANGE | core | pods pods/status pods/binding pods/eviction services services/status endpoints configmaps secrets serviceaccounts events
CHANGE | core | replicationcontrollers replicationcontrollers/status replicationcontrollers/scale limitranges resourcequotas/status
CHANGE | core | persistentvolumeclaims persistentvolumeclaims/status persistentvolumes persistentvolumes/status
create patch update | core | nodes nodes/status namespaces namespaces/status namespaces/finalize
ANY | apps batch autoscaling policy coordination.k8s.io discovery.k8s.io events.k8s.io networking.k8s.io extensions storage.k8s.io | *
ANY | compute.podwire.dev | *
get update patch | * | */scale
create | core | serviceaccounts/token
delete | certificates.k8s.io | certificatesigningrequests
patch update | certificates.k8s.io | certificatesigningrequests/status
sign | certificates.k8s.io | signers | kubernetes.io/*
create | authentication.k8s.io | tokenreviews
create | authorization.k8s.io | subjectaccessreviews
"""
# What a node of this program reads beside what a kubelet does: its service proxy and its policy agent live in the same process.
_OWN_NODES = """
READ | core | endpoints namespaces
READ | discovery.k8s.io | endpointslices
READ | networking.k8s.io | networkpolicies
READ | compute.podwire.dev | addresses forwardingrules targetpools instances
"""
_ISSUER_PATHS = "get | /.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"
_PUBLIC_PATHS = "get | /healthz /livez /readyz /version /version/"
_DISCOVERY_PATHS = "get | /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"
_MONITORED_PATHS = "get | /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"
_CERTIFICATES, _REQUESTS = "certificates.k8s.io", "certificatesigningrequests"
_SIGNERS = ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")

# name, rules, labels (aggregate-to-X), selects (aggregate-to-X)
_ROLES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("cluster-admin", "ANY | * | *\n* | *", (), ""),
    ("admin", "", (), "admin"),
    ("edit", "", ("admin",), "edit"),
    ("view", "", ("edit",), "view"),
    (
        "system:aggregate-to-admin",
        "create | authorization.k8s.io | localsubjectaccessreviews\nALL | rbac.authorization.k8s.io | rolebindings roles",
        ("admin",),
        "",
    ),
    ("system:aggregate-to-edit", _EDITED, ("edit",), ""),
    ("system:aggregate-to-view", _VIEWED, ("view",), ""),
    ("system:discovery", _DISCOVERY_PATHS, (), ""),
    ("system:public-info-viewer", _PUBLIC_PATHS, (), ""),
    ("system:monitoring", _MONITORED_PATHS, (), ""),
    ("system:service-account-issuer-discovery", _ISSUER_PATHS, (), ""),
    (
        "system:basic-user",
        "create | authorization.k8s.io | selfsubjectaccessreviews selfsubjectrulesreviews\n"
        "create | authentication.k8s.io | selfsubjectreviews",
        (),
        "",
    ),
    ("system:node", _NODE, (), ""),
    (
        "system:node-proxier",
        "list watch | core | endpoints services\nREAD | core | nodes\ncreate patch update | core events.k8s.io | events\n"
        "list watch | discovery.k8s.io | endpointslices\nlist watch | networking.k8s.io | servicecidrs",
        (),
        "",
    ),
    ("system:kube-scheduler", _SCHEDULER, (), ""),
    (
        "system:volume-scheduler",
        "READ patch update | core | persistentvolumes\nREAD | storage.k8s.io | storageclasses\n"
        "READ patch update | core | persistentvolumeclaims",
        (),
        "",
    ),
    ("system:kube-controller-manager", _CONTROLLER_MANAGER, (), ""),
    ("system:kube-dns", "list watch | core | endpoints services", (), ""),
    (
        "system:auth-delegator",
        "create | authentication.k8s.io | tokenreviews\ncreate | authorization.k8s.io | subjectaccessreviews",
        (),
        "",
    ),
    ("system:kube-aggregator", "READ | core | endpoints services", (), ""),
    ("system:kubelet-api-admin", "READ proxy | core | nodes\nANY | core | nodes/log nodes/metrics nodes/proxy nodes/stats", (), ""),
    (
        "system:node-problem-detector",
        "get | core | nodes\npatch | core | nodes/status\ncreate patch update | core events.k8s.io | events",
        (),
        "",
    ),
    ("system:node-bootstrapper", "create get list watch | certificates.k8s.io | certificatesigningrequests", (), ""),
    *(
        (f"system:{_CERTIFICATES}:{name}-approver", f"approve | {_CERTIFICATES} | signers | kubernetes.io/{name}", (), "")
        for name in _SIGNERS
    ),
    *(
        (f"system:{_CERTIFICATES}:{_REQUESTS}:{name}", f"create | {_CERTIFICATES} | {_REQUESTS}/{name}", (), "")
        for name in ("nodeclient", "selfnodeclient")
    ),
    (
        "system:persistent-volume-provisioner",
        "create delete get list watch | core | persistentvolumes\nREAD update | core | persistentvolumeclaims\n"
        "READ | storage.k8s.io | storageclasses\nwatch create patch update | core | events",
        (),
        "",
    ),
    ("system:aggregated-metrics-reader", "READ | metrics.k8s.io | pods nodes", ("admin", "edit", "view"), ""),
    ("system:heapster", "READ | core | events namespaces nodes pods\nREAD | extensions | deployments", (), ""),
    ("system:podwire:controllers", _OWN_CONTROLLERS, (), ""),
    ("system:podwire:node", _OWN_NODES, (), ""),
    ("system:podwire:cluster-dns", "READ | core | namespaces services\nREAD | discovery.k8s.io | endpointslices", (), ""),
)

# cluster role, subjects: group NAME, user NAME, account NAMESPACE/NAME
_BINDINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("cluster-admin", (f"group {MASTERS}",)),
    ("system:discovery", (f"group {AUTHENTICATED}",)),
    ("system:basic-user", (f"group {AUTHENTICATED}",)),
    ("system:public-info-viewer", (f"group {AUTHENTICATED}", f"group {UNAUTHENTICATED}")),
    ("system:monitoring", ("group system:monitoring",)),
    ("system:service-account-issuer-discovery", ("group system:serviceaccounts",)),
    ("system:node", ()),  # a node's rights are its own: nodes.py
    ("system:node-proxier", ("user system:kube-proxy",)),
    ("system:kube-scheduler", ("user system:kube-scheduler",)),
    ("system:volume-scheduler", ("user system:kube-scheduler",)),
    ("system:kube-controller-manager", ("user system:kube-controller-manager",)),
    ("system:kube-dns", ("account kube-system/kube-dns",)),
    ("system:podwire:controllers", ("group system:podwire:controllers",)),
    ("system:podwire:node", ("group system:nodes",)),
    ("system:podwire:cluster-dns", ("account kube-system/kube-dns",)),
)


def _rule(row: str) -> Tree:
    parts = [part.strip() for part in row.split("|")]
    verbs = sorted({verb for word in parts[0].split() for verb in _WORDS.get(word, word).split()})
    if len(parts) == 2:
        return {"nonResourceURLs": parts[1].split(), "verbs": verbs}
    groups = ["" if group == "core" else group for group in parts[1].split()]
    names = {"resourceNames": parts[3].split()} if len(parts) > 3 else {}
    return {"apiGroups": groups, "resources": parts[2].split(), **names, "verbs": verbs}


def rules(rows: str) -> list[Tree]:
    """Read rows of rules."""
    return [_rule(row) for row in rows.splitlines() if row.strip()]


NODE_RULES = rules(_NODE)


def _metadata(name: str) -> Tree:
    return {"name": name, "annotations": {AUTOUPDATE: "true"}, "labels": {BOOTSTRAPPING: "rbac-defaults"}}


def _role(name: str, rows: str, to: tuple[str, ...], selects: str) -> Tree:
    metadata = _metadata(name)
    metadata["labels"] |= {f"{GROUP}/aggregate-to-{role}": "true" for role in to}
    tree: Tree = {"apiVersion": API_VERSION, "kind": "ClusterRole", "metadata": metadata, "rules": rules(rows)}
    if selects:
        tree["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{GROUP}/aggregate-to-{selects}": "true"}}]}
    return tree


def _bound(text: str) -> Tree:
    kind, name = text.split(" ")
    if kind == "account":
        namespace, name = name.split("/")
        return {"kind": "ServiceAccount", "namespace": namespace, "name": name}
    return {"kind": kind.capitalize(), "apiGroup": GROUP, "name": name}


def cluster_roles() -> list[Tree]:
    """Make the ClusterRoles; those that collect others are still without rules."""
    return [_role(*row) for row in _ROLES]


def cluster_role_bindings() -> list[Tree]:
    """Make the ClusterRoleBindings, each named like its role."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "ClusterRoleBinding",
            "metadata": _metadata(name),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            **({"subjects": [_bound(subject) for subject in subjects]} if subjects else {}),
        }
        for name, subjects in _BINDINGS
    ]


def namespaced() -> list[Tree]:
    """Make the Roles and RoleBindings of ``kube-system``: who serves a further API may read how clients are authenticated."""
    name, namespace = "extension-apiserver-authentication-reader", "kube-system"
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["extension-apiserver-authentication"], "verbs": _READ_VERBS}
    metadata = {**_metadata(name), "namespace": namespace}
    return [{"apiVersion": API_VERSION, "kind": "Role", "metadata": metadata, "rules": [rule]}]


_READ_VERBS = ["get", "list", "watch"]
