"""Which cluster a command means, and the word for one that is not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from podwire.cluster import state
from podwire.cluster.paths import Paths


def name_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--name``."""
    return click.option("--name", default="podwire", show_default=True, metavar="NAME", help="the cluster's name")(command)


def known(name: str) -> Paths:
    """Give the paths of a cluster that has been made. Raises ClickException (exit status 1) when there is none of that name."""
    place = state.paths(name, os.environ)
    if not os.path.exists(place.state):
        others = [other for other in state.names(os.environ) if os.path.exists(state.paths(other, os.environ).state)]
        hint = f"there is {', '.join(others)}" if others else "start one with: podwire up"
        raise click.ClickException(f"there is no cluster {name!r}; {hint}")
    return place
