"""What of a Pod's spec cannot be had together with namespaces that it shares with its node: processes, and settings of the kernel.

Source: https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/ and the API's own messages
"""

from __future__ import annotations

import re

from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import FieldError, Path, duplicate, invalid, required

_PART = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_FORMAT = rf"^({_PART}[\./])*{_PART}$"
_NAME = re.compile(_FORMAT)
_LONGEST = 253
_OF_IPC = ("kernel.shm", "kernel.msg", "fs.mqueue.")


def sharing_errors(spec: Tree, path: Path) -> list[FieldError]:
    """Give the errors."""
    where, errors = path / "securityContext", []
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        words = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(invalid(where / "shareProcessNamespace", True, words))
    seen: set[str] = set()
    for index, one in enumerate(spec.get("securityContext", {}).get("sysctls", ())):
        name, place = one.get("name", ""), where / "sysctls" @ index / "name"
        if not name:
            errors.append(required(place))
        elif len(name) > _LONGEST or not _NAME.fullmatch(name):
            errors.append(invalid(place, name, f"must have at most {_LONGEST} characters and match regex {_FORMAT}"))
        elif name in seen:
            errors.append(duplicate(place, name))
        seen.add(name)
        errors += _of_the_node(spec, name, place)
    return errors


def _of_the_node(spec: Tree, name: str, place: Path) -> list[FieldError]:
    dotted = name.replace("/", ".")
    if spec.get("hostNetwork") and dotted.startswith("net."):
        return [invalid(place, name, "may not be specified when 'hostNetwork' is true")]
    if spec.get("hostIPC") and (dotted == "kernel.sem" or dotted.startswith(_OF_IPC)):
        return [invalid(place, name, "may not be specified when 'hostIPC' is true")]
    return []
