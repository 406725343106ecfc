"""podwire zone: a zone's network fails, and comes back."""

from __future__ import annotations

import click

from podwire.cli.node import operation, wait_option
from podwire.cli.place import name_option


@click.group()
def zone() -> None:
    """Cut a zone off, and join it again."""


@zone.command(short_help="Cut a zone off; its nodes run on.")
@click.argument("target", metavar="ZONE")
@name_option
def stop(target: str, name: str) -> None:
    """Have the fabric drop all that comes from and goes to the zone's nodes, which run on."""
    with operation(name, 0) as doing:
        doing.stop_zone(target)
    click.echo(f"zone {target} cut off")


@zone.command()
@click.argument("target", metavar="ZONE")
@name_option
@wait_option()
def start(target: str, name: str, wait_s: float) -> None:
    """Join the zone again."""
    with operation(name, wait_s) as doing:
        doing.start_zone(target)
    click.echo(f"zone {target} joined")
