"""podwire version."""

from __future__ import annotations

import json
import platform

import click

from podwire import __version__


@click.command()
@click.option("--name", metavar="NAME", help="the layout of this cluster's state as well")
@click.option("-o", "--output", type=click.Choice(["json"]), help="print JSON")
def version(name: str | None, output: str | None) -> None:
    """Print the versions of Podwire, of the Kubernetes API that it serves, of Python and of the kernel."""
    from podwire.apiserver.version import KUBERNETES_VERSION

    found = {"podwire": __version__, "kubernetes": KUBERNETES_VERSION, "python": platform.python_version(), "kernel": platform.release()}
    if name is not None:
        from podwire.cli.place import known
        from podwire.cluster import state

        found["layout"] = str(state.read(known(name)).layout)
    if output == "json":
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(f"{name:11} {value}" for name, value in found.items()))
