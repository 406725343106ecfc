"""What commands share of their words: which cluster is meant, and how long to wait."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import click

from podwire.cluster import control_client, state
from podwire.cluster.paths import Paths


class Seconds(click.FloatRange):
    """A time to wait: 0 or more (and a number: click lets nan through)."""

    def __init__(self) -> None:
        super().__init__(0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        return seconds


def name_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option ``--name``."""
    return click.option("--name", default="podwire", show_default=True, metavar="NAME", help="the cluster's name")(command)


def known(name: str) -> Paths:
    """Give the paths of a cluster that has been made. Raises NotRunning when there is none of that name."""
    place = state.paths(name, os.environ)
    if not os.path.exists(place.state):
        others = [other for other in state.names(os.environ) if os.path.exists(state.paths(other, os.environ).state)]
        raise control_client.NoCluster(name, others)
    return place
