"""What stock kubectl sends in protobuf makes the object that its JSON makes; what is not protobuf is told so."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from running_apiserver import ApiServer

Tree = dict[str, Any]
PROTOBUF = "application/vnd.kubernetes.protobuf"

CREATED = {
    "configmap": "create configmap NAME --from-literal=a=b --from-literal=empty=",
    "secret": "create secret generic NAME --from-literal=a=b --type=example.com/t",
    "registry": "create secret docker-registry NAME --docker-username=u --docker-password=p --docker-server=r.example",
    "deployment": "create deployment NAME --image=example/web:1 --replicas=3 --port=80",
    "idle": "create deployment NAME --image=example/web:1 --replicas=0 -- /web --flag",
    "clusterip": "create service clusterip NAME --tcp=80:http --tcp=443:8443",
    "headless": "create service clusterip NAME --clusterip=None",
    "nodeport": "create service nodeport NAME --tcp=80:8080",
    "loadbalancer": "create service loadbalancer NAME --tcp=80:8080",
    "externalname": "create service externalname NAME --external-name=db.example.com --tcp=5432",
    "namespace": "create namespace NAME",
    "job": "create job NAME --image=example/job:1 -- /job",
    "cronjob": "create cronjob NAME --image=example/job:1 --schedule=*/5~*~*~*~* --restart=Never",
    "ingress": "create ingress NAME --class=gce --rule=a.example/web*=web:80 --rule=b.example/=api:http,tls=t --annotation=a=b",
    "default-backend": "create ingress NAME --default-backend=web:80",
    "role": "create role NAME --verb=get,list --resource=pods,deployments.apps --resource-name=a",
    "clusterrole": "create clusterrole NAME --verb=get --non-resource-url=/metrics",
    "aggregated": "create clusterrole NAME --aggregation-rule=a=b",
    "rolebinding": "create rolebinding NAME --role=r --user=u --group=g --serviceaccount=default:d",
    "clusterrolebinding": "create clusterrolebinding NAME --clusterrole=r --user=u --serviceaccount=default:d",
    "serviceaccount": "create serviceaccount NAME",
    "run": "run NAME --image=example/web:1 --port=80 --env=A=B --labels=x=y --restart=OnFailure -- /web",  # before the quota
    "quota": "create quota NAME --hard=cpu=1.5,pods=10 --scopes=BestEffort",
    "minimum": "create poddisruptionbudget NAME --selector=app=a --min-available=50%",
    "maximum": "create poddisruptionbudget NAME --selector=app=a --max-unavailable=0",
    "priorityclass": "create priorityclass NAME --value=-10 --description=low --preemption-policy=Never",
}


@pytest.fixture(scope="module")
def key_pair(tmp_path_factory: pytest.TempPathFactory, server: ApiServer) -> list[str]:
    return [f"--cert={server.paths.pki}/apiserver.crt", f"--key={server.paths.pki}/apiserver.key"]


def told(tree: Tree) -> Tree:
    """What a writer said and the server filled in, without what differs from object to object."""
    metadata, spec = tree["metadata"], tree.get("spec", {})
    uid = metadata["uid"]
    if tree["kind"] == "ResourceQuota":
        tree.pop("status", None)  # what is used is counted a moment later
    for key in ("uid", "creationTimestamp", "resourceVersion", "managedFields", "name"):
        metadata.pop(key, None)
    for key in ("clusterIP", "clusterIPs"):
        if spec.get(key) not in ("None", ["None"]):
            spec.pop(key, None)
    for port in spec.get("ports", ()):
        port.pop("nodePort", None)
    text = json.dumps(tree).replace(uid, "UID").replace("through-protobuf", "NAME").replace("through-json", "NAME")
    return json.loads(re.sub("kube-api-access-[a-z0-9]{5}", "kube-api-access", text))  # follows from the containers' names, too


def created(kubectl: Any, words: list[str], *, protobuf: bool = True) -> tuple[Tree, Tree]:
    """Create an object as kubectl does and the same through its JSON; give both as they are stored."""
    own, other = ([word.replace("NAME", name).replace("~", " ") for word in words] for name in ("through-protobuf", "through-json"))
    sent = kubectl(own[0], "-v=8", "-o=json", *own[1:])
    assert sent.returncode == 0, sent.stderr
    assert (f"Content-Type: {PROTOBUF}" in sent.stderr) is protobuf
    text = kubectl(other[0], "--dry-run=client", "-o=json", *other[1:])
    through_json = kubectl("create", "-f", "-", "-o=json", "-v=8", stdin=text.stdout)
    assert through_json.returncode == 0, text.stdout + through_json.stderr
    assert PROTOBUF not in through_json.stderr
    first, second = (json.loads(one.stdout) for one in (sent, through_json))
    names = (f"{first['kind']}/{one['metadata']['name']}" for one in (first, second))
    first, second = json.loads(kubectl("get", "-o=json", *names).stdout)["items"]
    return first, second


@pytest.mark.parametrize("name", CREATED)
def test_kubectl_makes_the_same_through_protobuf_and_json(kubectl: Any, name: str) -> None:
    words = CREATED[name].replace("NAME", f"NAME-{name}").split()
    first, second = created(kubectl, words, protobuf=name != "run")
    kubectl("delete", first["kind"], first["metadata"]["name"], second["metadata"]["name"], "--wait=false")  # a quota binds those to come
    assert told(first) == told(second)


def test_a_pair_of_keys_too(kubectl: Any, key_pair: list[str]) -> None:
    first, second = created(kubectl, ["create", "secret", "tls", "NAME-tls", *key_pair])
    assert first["data"]["tls.crt"] == second["data"]["tls.crt"] != ""
    assert told(first) == told(second)


def test_expose_and_autoscale(kubectl: Any) -> None:
    assert kubectl("create", "deployment", "shop", "--image=example/web:1", "--port=80").returncode == 0
    first, second = created(
        kubectl,
        ["expose", "deployment", "shop", "--name=NAME-exposed", "--port=80", "--target-port=http", "--type=NodePort"],
        protobuf=False,
    )
    assert first["spec"]["selector"] == {"app": "shop"}
    assert told(first) == told(second)
    first, second = created(kubectl, ["autoscale", "deployment", "shop", "--name=NAME-scaler", "--max=5", "--min=2", "--cpu=70%"])
    assert told(first) == told(second)


def test_questions_about_oneself(kubectl: Any) -> None:
    assert "Username    podwire-admin" in kubectl("auth", "whoami").stdout
    assert kubectl("auth", "can-i", "create", "pods", "--subresource=binding").stdout == "yes\n"
    assert kubectl("auth", "can-i", "get", "/metrics").stdout == "yes\n"
    listed = kubectl("auth", "can-i", "--list")
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.splitlines()[0].split() == ["Resources", "Non-Resource", "URLs", "Resource", "Names", "Verbs"]


def test_questions_about_others(kubectl: Any) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": "eve", "groups": ["system:authenticated"], "resourceAttributes": {"verb": "get", "resource": "secrets"}},
    }
    sent = kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(review))
    assert sent.returncode == 0, sent.stderr
    assert json.loads(sent.stdout)["status"]["allowed"] is False


def test_what_is_not_protobuf_is_told(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    got = call("POST", path, b"not protobuf", content_type=PROTOBUF)
    assert (got.status, got.tree["reason"]) == (400, "BadRequest")
    assert got.tree["message"] == "the object provided is unrecognized (must be of type Protobuf): the prefix k8s\\x00 is missing"
    cut = call("POST", path, b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x7f", content_type=PROTOBUF)
    assert (cut.status, cut.tree["message"]) == (
        400,
        "the object provided is unrecognized (must be of type Protobuf): unexpected end of the body",
    )
    other = call("POST", path, b"k8s\0\n\x09\n\x02v1\x12\x03Pod", content_type=PROTOBUF)
    assert other.status == 400
    assert "the kind in the data does not match" in other.tree["message"]


def test_a_kind_that_is_json_alone(call: Any) -> None:
    sent = b"k8s\0\n\x28\n\x16compute.podwire.dev/v1\x12\x0eForwardingRule"
    got = call("POST", "/apis/compute.podwire.dev/v1/forwardingrules", sent, content_type=PROTOBUF)
    assert got.status == 415, got
    assert "ForwardingRule" in got.tree["message"]


def test_answers_are_json_and_protobuf_alone_is_refused(call: Any, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    sent = b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x07\n\x05\n\x03abc"
    got = call("POST", path, sent, content_type=PROTOBUF, headers={"accept": f"{PROTOBUF},application/json"})
    assert (got.status, got.tree["metadata"]["name"]) == (201, "abc")
    assert call("GET", f"{path}/abc", headers={"accept": PROTOBUF}).status == 406
