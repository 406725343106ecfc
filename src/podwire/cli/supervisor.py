"""podwire supervisor: the warm parent of a lab's processes. The lab starts it; a person has no need to."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

import click


@click.command(hidden=True)
@click.argument("root")
def supervisor(root: str) -> None:
    """Run the processes of the lab whose state directory is ROOT."""
    from podwire.cli.main import main
    from podwire.cluster.supervisor import run

    run(root, main, warm())


def warm() -> Iterator[str]:
    """Import what the children will need, so that each of them costs a fork; yield each command's word when it is done."""
    from podwire.cli.agent import AGENTS

    agents = ("podwire.cli.agent", "podwire.daemon.run", *(place.partition(":")[0] for place in AGENTS.values()))
    # For the API's process all others wait: it is forked first, and imports its own things on the other processor meanwhile.
    needs = {
        "apiserver": (),
        "standins": ("podwire.cli.standins", "podwire.pods.standins.process"),
        "bootstrap": ("podwire.cli.bootstrap", "podwire.client.api", "podwire.cluster.apply"),
        "agent": agents,
    }
    for word, modules in needs.items():
        for module in modules:
            # A child that needs what cannot be imported says so itself, in its own log.
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
        yield word
