"""What makes a Pod right, alone and as a template, and what may change while it lives.

Here: rules on the plain tree, all errors at once. Not here: rules of one container (``container_validation.py``).

Source: https://kubernetes.io/docs/concepts/workloads/pods/#pod-update-and-replacement and the API's own messages
"""

from __future__ import annotations

import orjson

from podwire.apiserver.kind import Tree
from podwire.apiserver.kinds.affinity_validation import affinity_errors
from podwire.apiserver.kinds.container_validation import STOP_SIGNALS, container_errors, stop_signal_errors
from podwire.apiserver.kinds.pod_sharing_validation import sharing_errors
from podwire.apiserver.kinds.volume_source_validation import source_errors
from podwire.apiserver.validation import (
    FieldError,
    Path,
    Remembered,
    annotation_errors,
    dns_subdomain,
    duplicate,
    forbidden,
    invalid,
    label_errors,
    required,
)
from podwire.apiserver.validation_values import address_errors, label_name_errors, not_negative, one_of, qualified_errors

_SPEC = Path("spec")
_right = Remembered()
_DNS = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
_MAY_CHANGE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_pod(tree: Tree, old: Tree | None) -> list[FieldError]:
    """Give every error of a Pod."""
    spec = tree.get("spec", {})
    if old is None:
        if "ephemeralContainers" in spec:
            return [*spec_errors(spec, _SPEC), forbidden(_SPEC / "ephemeralContainers", "cannot be set on create")]
        value = orjson.dumps(spec)
        if value in _right:
            return []
        errors = spec_errors(spec, _SPEC)
        if not errors:
            _right.add(value)
        return errors
    before = old.get("spec", {})
    # What is stored is right: a change of labels alone needs no second look at the rest.
    return [] if spec == before else spec_errors(spec, _SPEC) + _changes(spec, before)


def template_errors(template: Tree, path: Path) -> list[FieldError]:
    """Give the errors of a Pod template."""
    metadata = template.get("metadata", {})
    errors = label_errors(metadata.get("labels", {}), path / "metadata" / "labels")
    errors += annotation_errors(metadata.get("annotations", {}), path / "metadata" / "annotations")
    spec = template.get("spec", {})
    errors += spec_errors(spec, path / "spec")
    if "ephemeralContainers" in spec:
        errors.append(forbidden(path / "spec" / "ephemeralContainers", "ephemeral containers not allowed in pod template"))
    return errors


def spec_errors(spec: Tree, path: Path) -> list[FieldError]:
    """Give the errors of a Pod's spec."""
    volumes, errors = _volumes(spec, path / "volumes")
    names: set[str] = set()
    system = spec["os"].get("name", "") if "os" in spec else ""
    if "os" in spec:
        where = path / "os" / "name"
        errors += one_of(system, STOP_SIGNALS, where) if system else [required(where, "cannot be empty")]
    if not spec.get("containers"):
        errors.append(required(path / "containers"))
    for key in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(key, ())):
            errors += container_errors(container, volumes, names, path / key @ index)
            if key == "initContainers" and container.get("restartPolicy") != "Always":
                errors += _not_before_others(container, path / key @ index)
            else:
                errors += stop_signal_errors(container, system, path / key @ index)
    errors += one_of(spec.get("restartPolicy", ""), ("Always", "Never", "OnFailure"), path / "restartPolicy")
    errors += one_of(spec.get("dnsPolicy", ""), _DNS, path / "dnsPolicy")
    errors += label_errors(spec.get("nodeSelector", {}), path / "nodeSelector")
    errors += not_negative(spec.get("terminationGracePeriodSeconds"), path / "terminationGracePeriodSeconds")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        errors.append(invalid(path / "activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive"))
    for key in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        if value := spec.get(key):
            errors += [invalid(path / key, value, text) for text in dns_subdomain(value)]
    for key in ("hostname", "subdomain"):
        if value := spec.get(key):
            errors += label_name_errors(value, path / key)
    errors += sharing_errors(spec, path)
    return errors + _network(spec, path) + toleration_errors(spec, path / "tolerations") + _scheduling(spec, path)


def _not_before_others(container: Tree, path: Path) -> list[FieldError]:
    """What a container may not have that ends before the others begin."""
    keys = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
    return [forbidden(path / key, "may not be set for init containers without restartPolicy=Always") for key in keys if key in container]


def _volumes(spec: Tree, path: Path) -> tuple[set[str], list[FieldError]]:
    names: set[str] = set()
    errors: list[FieldError] = []
    for index, volume in enumerate(spec.get("volumes", ())):
        name, where = volume.get("name", ""), path @ index
        errors += label_name_errors(name, where / "name") if name else [required(where / "name")]
        if name in names:
            errors.append(duplicate(where / "name", name))
        names.add(name)
        kinds = [key for key in volume if key != "name"]
        if not kinds:
            errors.append(required(where, "must specify a volume type"))
        errors += [forbidden(where / key, "may not specify more than 1 volume type") for key in kinds[1:]]
        errors += source_errors(volume, where)
    return names, errors


def _network(spec: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, alias in enumerate(spec.get("hostAliases", ())):
        errors += address_errors(alias.get("ip", ""), path / "hostAliases" @ index / "ip")
        for name in alias.get("hostnames", ()):
            errors += [invalid(path / "hostAliases" @ index / "hostnames", name, text) for text in dns_subdomain(name)]
    config = spec.get("dnsConfig", {})
    servers = config.get("nameservers", ())
    if spec.get("dnsPolicy") == "None" and not servers:
        errors.append(required(path / "dnsConfig" / "nameservers", "must provide at least one DNS nameserver when `dnsPolicy` is None"))
    for index, server in enumerate(servers):
        errors += address_errors(server, path / "dnsConfig" / "nameservers" @ index)
    if spec.get("hostNetwork"):
        for index, container in enumerate(spec.get("containers", ())):
            for place, port in enumerate(container.get("ports", ())):
                if port.get("hostPort") != port.get("containerPort"):
                    where = path / "containers" @ index / "ports" @ place / "hostPort"
                    errors.append(invalid(where, port.get("hostPort"), "must match `containerPort` when `hostNetwork` is true"))
    return errors


def toleration_errors(spec: Tree, path: Path) -> list[FieldError]:
    """Give the errors of ``tolerations``."""
    errors: list[FieldError] = []
    for index, one in enumerate(spec.get("tolerations", ())):
        where, key, operator = path @ index, one.get("key", ""), one.get("operator", "")
        if key:
            errors += qualified_errors(key, where / "key")
        elif operator != "Exists":
            errors.append(
                invalid(
                    where / "operator", operator, 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
                )
            )
        if operator:
            errors += one_of(operator, ("Equal", "Exists", "Gt", "Lt"), where / "operator")
        if operator == "Exists" and one.get("value"):
            errors.append(invalid(where / "operator", one["value"], "value must be empty when `operator` is 'Exists'"))
        if one.get("effect"):
            errors += one_of(one["effect"], ("NoExecute", "NoSchedule", "PreferNoSchedule"), where / "effect")
        if one.get("tolerationSeconds") is not None and one.get("effect") != "NoExecute":
            errors.append(invalid(where / "effect", one.get("effect", ""), "effect must be 'NoExecute' when `tolerationSeconds` is set"))
    return errors


def _scheduling(spec: Tree, path: Path) -> list[FieldError]:
    errors = affinity_errors(spec["affinity"], path / "affinity") if "affinity" in spec else []
    for index, spread in enumerate(spec.get("topologySpreadConstraints", ())):
        where = path / "topologySpreadConstraints" @ index
        if spread.get("maxSkew", 0) <= 0:
            errors.append(invalid(where / "maxSkew", spread.get("maxSkew", 0), "must be greater than zero"))
        if not spread.get("topologyKey"):
            errors.append(required(where / "topologyKey", "can not be empty"))
        errors += one_of(spread.get("whenUnsatisfiable", ""), ("DoNotSchedule", "ScheduleAnyway"), where / "whenUnsatisfiable")
    for index, gate in enumerate(spec.get("readinessGates", ())):
        errors += qualified_errors(gate.get("conditionType", ""), path / "readinessGates" @ index / "conditionType")
    return errors


# Changes -----------------------------------------------------------------------------------------------------------------


def _changes(spec: Tree, before: Tree) -> list[FieldError]:
    """What may change while a Pod lives: images, the deadline downwards, more tolerations, fewer scheduling gates."""
    for key in ("containers", "initContainers"):
        if len(spec.get(key, ())) != len(before.get(key, ())):
            return [forbidden(_SPEC / key, "pod updates may not add or remove containers")]
    errors: list[FieldError] = []
    deadline, former = spec.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    path = _SPEC / "activeDeadlineSeconds"
    if former is not None and deadline is None:
        errors.append(invalid(path, deadline, "must not update from a positive integer to nil value"))
    elif former is not None and deadline is not None and deadline > former:
        errors.append(invalid(path, deadline, "must be less than or equal to previous value"))
    had = before.get("tolerations", [])
    if any(one not in spec.get("tolerations", []) for one in had):
        errors.append(forbidden(_SPEC / "tolerations", "existing toleration can not be modified except its tolerationSeconds"))
    gates = before.get("schedulingGates", [])
    if any(gate not in gates for gate in spec.get("schedulingGates", [])):
        errors.append(forbidden(_SPEC / "schedulingGates", "only deletion is allowed, but found new scheduling gates"))
    if errors:
        return errors
    return [] if _fixed(spec, before) == _fixed(before, before) else [forbidden(_SPEC, _MAY_CHANGE)]


def _fixed(spec: Tree, before: Tree) -> Tree:
    """What is left of a spec without what may change."""
    free = ("activeDeadlineSeconds", "tolerations", "schedulingGates", "containers", "initContainers")
    rest = {key: value for key, value in spec.items() if key not in free}
    if before.get("terminationGracePeriodSeconds", 0) < 0:
        rest.pop("terminationGracePeriodSeconds", None)
    if before.get("schedulingGates"):
        rest.pop("nodeSelector", None)
    for key in ("containers", "initContainers"):
        # A changed image changes its default pull policy at most for the writer who leaves it out: it stays as it was.
        rest[key] = [{name: value for name, value in one.items() if name != "image"} for one in spec.get(key, ())]
    return rest
