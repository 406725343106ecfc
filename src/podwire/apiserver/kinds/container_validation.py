"""What makes a container right: names, ports, variables, probes, resources, mounts.

Here: rules on the plain tree of one container, all errors at once. Not here: the Pod round it (``pod_validation.py``).

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container
"""

from __future__ import annotations

import re
from typing import Any

from podwire.apiserver import quantity
from podwire.apiserver.kind import Tree
from podwire.apiserver.kinds.volume_source_validation import relative_path_errors
from podwire.apiserver.validation import FieldError, Path, data_key, duplicate, forbidden, invalid, not_found, required, unsupported
from podwire.apiserver.validation_values import (
    amount_errors,
    label_name_errors,
    not_negative,
    one_of,
    port_errors,
    port_name_texts,
    port_or_name_errors,
)
from podwire.objects import signals

STOP_SIGNALS = {"linux": signals.NAMES, "windows": frozenset({"SIGKILL", "SIGTERM"})}
"""By the name of a Pod's operating system."""
_MOST_ID = 2**31 - 1
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_is_variable = re.compile(r"[ -<>-~]+").fullmatch
_VARIABLE_TEXT = "a valid environment variable name must consist only of printable ASCII characters other than '='"


def container_errors(container: Tree, volumes: set[str], names: set[str], path: Path) -> list[FieldError]:
    """Give the errors of one container. ``names`` are those of the containers before it and grows; ``volumes`` those of the Pod."""
    errors: list[FieldError] = []
    name, image = container.get("name", ""), container.get("image", "")
    errors += label_name_errors(name, path / "name") if name else [required(path / "name")]
    if name and name in names:
        errors.append(duplicate(path / "name", name))
    names.add(name)
    if not image:
        errors.append(required(path / "image"))
    elif image != image.strip():
        errors.append(invalid(path / "image", image, "must not have leading or trailing whitespace"))
    errors += one_of(container.get("imagePullPolicy", ""), ("Always", "IfNotPresent", "Never"), path / "imagePullPolicy")
    errors += one_of(container.get("terminationMessagePolicy", ""), ("FallbackToLogsOnError", "File"), path / "terminationMessagePolicy")
    errors += _ports(container.get("ports", ()), path / "ports") + _environment(container, path)
    errors += _mounts(container.get("volumeMounts", ()), volumes, path / "volumeMounts")
    errors += resources_errors(container.get("resources", {}), path / "resources")
    if "securityContext" in container:
        errors += _security(container["securityContext"], path / "securityContext")
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if key in container:
            errors += _probe(container[key], path / key, once=key != "readinessProbe")
    for key, hook in container.get("lifecycle", {}).items():
        if isinstance(hook, dict):
            errors += _handler(hook, ("exec", "httpGet", "sleep", "tcpSocket"), path / "lifecycle" / key)
    return errors


def stop_signal_errors(container: Tree, system: str, path: Path) -> list[FieldError]:
    """Give what is wrong with the signal that ends a container. ``system``: what the Pod says in ``os``; "" where that is nothing."""
    where, said = path / "lifecycle" / "stopSignal", container.get("lifecycle", {}).get("stopSignal")
    if said is None:
        return []
    if not system:
        return [forbidden(where, "may not be set for containers with empty `spec.os.name`")]
    allowed = STOP_SIGNALS.get(system, frozenset())
    return [unsupported(where, said, allowed)] if allowed and said not in allowed else []


def _ports(ports: Any, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        where = path @ index
        if name := port.get("name", ""):
            texts = port_name_texts(name)
            errors += [invalid(where / "name", name, text) for text in texts]
            if not texts and name in names:
                errors.append(duplicate(where / "name", name))
            names.add(name)
        number = port.get("containerPort", 0)
        errors += port_errors(number, where / "containerPort") if number else [required(where / "containerPort")]
        if port.get("hostPort"):
            errors += port_errors(port["hostPort"], where / "hostPort")
        errors += one_of(port.get("protocol", ""), ("SCTP", "TCP", "UDP"), where / "protocol")
    return errors


def _environment(container: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, variable in enumerate(container.get("env", ())):
        where = path / "env" @ index
        name = variable.get("name", "")
        if not name:
            errors.append(required(where / "name"))
        elif not _is_variable(name):
            errors.append(invalid(where / "name", name, _VARIABLE_TEXT))
        source = variable.get("valueFrom")
        if source is not None:
            errors += _source(source, variable, where / "valueFrom")
    for index, source in enumerate(container.get("envFrom", ())):
        if len([key for key in ("configMapRef", "secretRef") if key in source]) != 1:
            errors.append(invalid(path / "envFrom" @ index, "", "must specify one of: `configMapRef` or `secretRef`"))
    return errors


def _source(source: Tree, variable: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    keys = [key for key in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef") if key in source]
    if not keys:
        errors.append(
            invalid(path, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`")
        )
    elif variable.get("value"):
        errors.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(keys) > 1:
        errors.append(invalid(path, "", "may not have more than one field specified at a time"))
    for key in ("configMapKeyRef", "secretKeyRef"):
        if key in source:
            wanted = source[key].get("key", "")
            texts = data_key(wanted) if wanted else []
            errors += [invalid(path / key / "key", wanted, text) for text in texts] if wanted else [required(path / key / "key")]
    if "fieldRef" in source and not source["fieldRef"].get("fieldPath"):
        errors.append(required(path / "fieldRef" / "fieldPath"))
    return errors


def _mounts(mounts: Any, volumes: set[str], path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    places: set[str] = set()
    for index, mount in enumerate(mounts):
        name, place, where = mount.get("name", ""), mount.get("mountPath", ""), path @ index
        if not name:
            errors.append(required(where / "name"))
        elif name not in volumes:
            errors.append(not_found(where / "name", name))
        if not place:
            errors.append(required(where / "mountPath"))
        elif place in places:
            errors.append(invalid(where / "mountPath", place, "must be unique"))
        places.add(place)
        for key in ("subPath", "subPathExpr"):
            errors += relative_path_errors(mount.get(key, ""), where / key)
        if mount.get("subPath") and mount.get("subPathExpr"):
            errors.append(invalid(where / "subPathExpr", mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"))
    return errors


def _security(context: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("runAsUser", "runAsGroup"):
        number = context.get(key)
        if number is not None and not 0 <= number <= _MOST_ID:
            errors.append(invalid(path / key, number, f"must be between 0 and {_MOST_ID}, inclusive"))
    if context.get("allowPrivilegeEscalation") is False and context.get("privileged"):
        text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
        errors.append(invalid(path / "allowPrivilegeEscalation", False, text))
    return errors


def resources_errors(resources: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for key, amounts in (("limits", limits), ("requests", requests)):
        for name, text in amounts.items():
            errors += amount_errors(text, path / key % name)
    for name, text in requests.items():
        limit = limits.get(name)
        if limit is not None and quantity.value(text) > quantity.value(limit):
            errors.append(invalid(path / "requests", text, f"must be less than or equal to {name} limit of {limit}"))
    return errors


def _probe(probe: Tree, path: Path, *, once: bool) -> list[FieldError]:
    errors = _handler(probe, _HANDLERS, path)
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        errors += not_negative(probe.get(key), path / key)
    if once and probe.get("successThreshold", 1) != 1:
        errors.append(invalid(path / "successThreshold", probe["successThreshold"], "must be 1"))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        errors.append(invalid(path / "terminationGracePeriodSeconds", grace, "must be greater than 0"))
    return errors


def _handler(handler: Tree, kinds: tuple[str, ...], path: Path) -> list[FieldError]:
    found = [key for key in kinds if key in handler]
    if not found:
        return [required(path, "must specify a handler type")]
    errors: list[FieldError] = [forbidden(path / key, "may not specify more than 1 handler type") for key in found[1:]]
    if "exec" in handler and not handler["exec"].get("command"):
        errors.append(required(path / "exec" / "command"))
    if "httpGet" in handler:
        call = handler["httpGet"]
        if not call.get("path"):
            errors.append(required(path / "httpGet" / "path"))
        errors += port_or_name_errors(call.get("port", 0), path / "httpGet" / "port")
        errors += one_of(call.get("scheme", ""), ("HTTP", "HTTPS"), path / "httpGet" / "scheme")
    if "tcpSocket" in handler:
        errors += port_or_name_errors(handler["tcpSocket"].get("port", 0), path / "tcpSocket" / "port")
    if "grpc" in handler:
        errors += port_errors(handler["grpc"].get("port", 0), path / "grpc" / "port")
    return errors
