"""podwire list: which clusters there are."""

from __future__ import annotations

import json
import os

import click

from podwire.cli.output import table


@click.command("list")
@click.option("--name", metavar="NAME", help="only the cluster of this name  [default: all]")
@click.option("-o", "--output", type=click.Choice(["json"]), help="for a program")
def list_(name: str | None, output: str | None) -> None:
    """List the clusters; what a killed command left of one is removed first."""
    from podwire.cluster import lifecycle

    found = [one for one in lifecycle.clusters(os.environ) if name in (None, one.name)]
    if output == "json":
        click.echo(json.dumps([{"name": one.name, "state": one.state, "nodes": one.nodes, "apiServer": one.api_server} for one in found]))
    elif found:
        click.echo(table(("NAME", "STATE", "NODES", "API"), [(one.name, one.state, one.nodes, one.api_server) for one in found]))
    else:
        click.echo("no clusters", err=True)
