"""podwire down: end a cluster, and delete its state unless it is kept."""

from __future__ import annotations

import os

import click

from podwire.cli.place import name_option


@click.command()
@name_option
@click.option("--keep", is_flag=True, help="keep objects, credentials and addresses for the next `podwire up`")
def down(name: str, keep: bool) -> None:
    """End a cluster and delete its state."""
    from podwire.cluster import lifecycle

    click.echo(lifecycle.down(name, os.environ, keep=keep))
