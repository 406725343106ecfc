"""How a container's own words and those of its image meet: command, environment, folder and user. Pure.

Sources: https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/#notes,
https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from podwire.images.documents import Execution
from podwire.objects.core import Container, Pod
from podwire.pods import environment
from podwire.pods.admission import CannotStart


@dataclass(frozen=True)
class Words:
    """What is executed."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str


def merged(container: Container, image: Execution, variables: Mapping[str, str], usual: Mapping[str, str]) -> Words:
    """A container's ``command`` takes the place of the image's entrypoint and Cmd, its ``args`` that of the Cmd. Raises CannotStart.

    ``usual``: variables that every container has, if nothing else is said.
    """
    own = Container(command=container.command or image.entrypoint or (), args=container.args)
    if not container.command and not container.args:
        own = Container(command=image.entrypoint or (), args=image.cmd or ())
    given = {"command": container.command, "args": container.args}
    argv = [
        *(environment.command(Container(command=own.command), variables) if given["command"] else own.command),
        *(environment.command(Container(args=own.args), variables) if given["args"] else own.args),
    ]
    if not argv:
        raise CannotStart("CreateContainerError", f"no command specified: image {container.image} has none, nor has the container")
    theirs = dict(pair.partition("=")[::2] for pair in image.env or ())
    env = {**usual, **theirs, **variables}
    return Words(tuple(argv), env, container.working_dir or image.working_dir or "/")


def check_user(pod: Pod, container: Container, image: Execution, read: Callable[[str], str]) -> None:
    """A cluster's user namespace has one user, 0, and so has every container. Raises CannotStart for one that is to be another one.

    ``read`` gives the text of a file of the image, "" where there is none.
    """
    where = f'(pod: "{pod.name}_{pod.namespace}({pod.metadata.uid})", container: {container.name})'
    contexts = [context for context in (container.security_context, pod.spec.security_context) if context is not None]
    user = next((context.run_as_user for context in contexts if context.run_as_user is not None), None)
    group = next((context.run_as_group for context in contexts if context.run_as_group is not None), None)
    said = "runAsUser"
    if user is None:
        name, _, named_group = image.user.partition(":")
        user, said = _number(name, read("etc/passwd")), f"the image's user {image.user!r}:"
        if user is None:
            raise CannotStart("CreateContainerError", f"unable to find user {name}: no matching entries in passwd file {where}")
        if group is None and named_group:
            group = _number(named_group, read("etc/group"))
    if next((context.run_as_non_root for context in contexts if context.run_as_non_root is not None), False) and user == 0:
        words = (
            "container's runAsUser breaks non-root policy"
            if said == "runAsUser"
            else "container has runAsNonRoot and image will run as root"
        )
        raise CannotStart("CreateContainerConfigError", f"{words} {where}")
    for field, value in ((said, user), ("runAsGroup", group)):
        if value:
            words = f"a container runs as user 0 and group 0, the cluster's only ones: {field} {value} cannot be had {where}"
            raise CannotStart("CreateContainerConfigError", words)


def _number(name: str, database: str) -> int | None:
    """The number of a user or group, from a file such as /etc/passwd. None: there is none of this name."""
    if not name:
        return 0
    if name.isdigit():
        return int(name)
    for line in database.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    return None
