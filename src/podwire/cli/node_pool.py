"""podwire node-pool: every node of a pool is recreated, as by an upgrade on GKE."""

from __future__ import annotations

import click

from podwire.cli.node import operation, wait_option
from podwire.cli.place import name_option


@click.group("node-pool")
def node_pool() -> None:
    """Upgrade a node pool."""


@node_pool.command()
@click.argument("target", metavar="POOL")
@click.option("--max-surge", type=click.IntRange(0, 20), default=1, show_default=True, help="nodes beside those that there are")
@click.option("--max-unavailable", type=click.IntRange(0, 20), default=0, show_default=True, help="nodes fewer than there are")
@name_option
@wait_option(600.0)
def upgrade(target: str, max_surge: int, max_unavailable: int, name: str, wait_s: float) -> None:
    """Recreate the pool's nodes one after the other: a new one, then the old one drained and deleted. --wait is for each step."""
    if not max_surge + max_unavailable:
        raise click.UsageError("--max-surge and --max-unavailable are both 0: no node could be replaced")
    if not wait_s:
        raise click.UsageError("--wait: an upgrade waits for each of its steps; expected more than 0")
    with operation(name, wait_s) as doing:
        replaced = doing.upgrade(target, max_surge, max_unavailable)
    for old, new in replaced:
        click.echo(f"node {old} replaced by {new}")
