"""How a container's own words and those of its image meet: command, environment and folder. Pure.

Source: https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/#notes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from podwire.images.documents import Execution
from podwire.objects.core import Container
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
