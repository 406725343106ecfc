"""log, exec, attach and portforward of a Pod: which container is meant, and what its kubelet is asked.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ and the API's own messages
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode

from podwire.apiserver import status
from podwire.apiserver.answers import Tree
from podwire.apiserver.api import Api
from podwire.apiserver.requests import Request
from podwire.apiserver.streaming import kubelet
from podwire.apiserver.streaming.exchanges import UNREACHABLE, Exchange, Joined, Passed, Refused, forwarded, join, request
from podwire.apiserver.streaming.upstream import Upstream, unreachable
from podwire.apiserver.validation import FieldError, Path, invalid

_TRUE: Final = ("true", "1", "True", "t", "T", "TRUE")
_LOG_OPTIONS: Final = ("follow", "previous", "timestamps", "tailLines", "limitBytes", "sinceSeconds", "sinceTime", "stream")
_LISTS: Final = (("", "containers"), ("init ", "initContainers"), ("ephemeral ", "ephemeralContainers"))


class _LogOptions:
    group, plural, kind, resource = "", "podlogoptions", "PodLogOptions", "podlogoptions"


def container_of(pod: Tree, wanted: str) -> str:
    """The container that is meant. Raises Failure (400)."""
    name, spec = pod["metadata"]["name"], pod.get("spec", {})
    names = {word: [one["name"] for one in spec.get(key, ())] for word, key in _LISTS}
    if wanted:
        if not any(wanted in found for found in names.values()):
            raise status.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(names[""]) == 1:
        return str(names[""][0])
    message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(names[''])}]"
    if names["init "]:
        message += f" or one of the init containers: [{' '.join(names['init '])}]"
    raise status.bad_request(message)


def _node(pod: Tree) -> str:
    return str(pod.get("spec", {}).get("nodeName", ""))


def _place(request: Request, container: str = "") -> str:
    target = request.target
    return "/".join(quote(part, safe="") for part in (target.namespace, target.name, container) if part)


# ------------------------------------------------------------------------------------------------------------------ log


def _log_errors(query: Mapping[str, str]) -> list[FieldError]:
    errors = []
    for name, least, words in (
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ):
        text = query.get(name, "")
        if text:
            try:
                number = int(text)
            except ValueError:
                raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
            if number < least:
                errors.append(invalid(Path(name), number, words))
    if query.get("sinceSeconds") and query.get("sinceTime"):
        errors.append(FieldError("FieldValueForbidden", "", "", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    if query.get("stream", "All") not in ("All", "Stdout", "Stderr", ""):
        errors.append(invalid(Path("stream"), query["stream"], 'supported values: "All", "Stderr", "Stdout"'))
    return errors


async def log(api: Api, upstream: Upstream, asked: Request) -> Exchange | None:
    """GET of a log; None where the Pod is on no node yet and there is nothing to read. Raises Failure."""
    pod = kubelet.read(api, "pods", asked.target.namespace, asked.target.name)
    if errors := _log_errors(asked.query):
        raise status.invalid(_LogOptions(), asked.target.name, errors)
    container = container_of(pod, asked.query.get("container", ""))
    if not _node(pod):
        return None
    endpoint = kubelet.locate(api, upstream, _node(pod))
    words = {name: asked.query[name] for name in _LOG_OPTIONS if asked.query.get(name) and asked.query[name] not in ("false", "0")}
    target = f"/containerLogs/{_place(asked, container)}" + (f"?{urlencode(words)}" if words else "")
    try:
        answer = await request(upstream, endpoint, "GET", target, [])
    except UNREACHABLE as error:
        raise unreachable(endpoint.origin + target, endpoint, error) from error
    if answer.status != 200:
        body = await answer.content.read(65_536)
        answer.close()
        raise kubelet.refusal(answer.status, body)
    return Passed(answer)


# --------------------------------------------------------------------------------------------- exec, attach, portforward


def _command(asked: Request, words: Mapping[str, list[str]], container: str) -> str:
    """What the kubelet is asked for an exec or attach: the words of its own path."""
    streams = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    query: list[tuple[str, str]] = [(theirs, "1") for ours, theirs in streams.items() if words.get(ours, ["false"])[-1] in _TRUE]
    if asked.target.subresource == "exec":
        query += [("command", word) for word in words.get("command", [])]
    return f"/{asked.target.subresource}/{_place(asked, container)}?{urlencode(query)}"


async def connect(api: Api, upstream: Upstream, asked: Request, scope: dict[str, Any], take_over: Any) -> Joined:
    """An upgrade that the Pod's kubelet serves. Raises Failure."""
    pod = kubelet.read(api, "pods", asked.target.namespace, asked.target.name)
    words = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    portforward = asked.target.subresource == "portforward"
    container = "" if portforward else container_of(pod, words.get("container", [""])[-1])
    if not _node(pod):
        raise status.bad_request(f"pod {asked.target.name} does not have a host assigned")
    if take_over is None:
        raise status.bad_request("Upgrade request required")
    endpoint = kubelet.locate(api, upstream, _node(pod))
    if portforward:
        ports = [("port", port) for port in words.get("ports", [])]
        target = f"/portForward/{_place(asked)}" + (f"?{urlencode(ports)}" if ports else "")
    else:
        target = _command(asked, words, container)
    try:
        return await join(upstream, endpoint, asked.method, target, forwarded(scope["headers"], upgrade=True), take_over)
    except Refused as refused:
        raise kubelet.refusal(refused.code, refused.body) from refused
    except UNREACHABLE as error:
        failure = unreachable(endpoint.origin + target.partition("?")[0], endpoint, error)
        raise status.Failure(500, "InternalError", f"error dialing backend: {failure.message.partition(': ')[2]}") from error
