"""podwire node-pool: every node of a pool is recreated, as by an upgrade on GKE."""

from __future__ import annotations

import click

from podwire.cli.node import operation, wait_option
from podwire.cli.place import name_option
from podwire.cluster.problem import Problem


@click.group("node-pool")
def node_pool() -> None:
    """Upgrade a node pool."""


@node_pool.command(short_help="Recreate the nodes of a pool.")
@click.argument("target", metavar="POOL")
@click.option(
    "--max-surge", type=click.IntRange(0, 20), metavar="N", default=1, show_default=True, help="nodes beside those that there are"
)
@click.option("--max-unavailable", type=click.IntRange(0, 20), metavar="N", default=0, show_default=True, help="nodes fewer than there are")
@click.option("--cancel", is_flag=True, help="end one that was interrupted: leave the nodes that are there, new and old")
@name_option
@wait_option(600.0)
def upgrade(target: str, max_surge: int, max_unavailable: int, cancel: bool, name: str, wait_s: float) -> None:
    """Recreate the pool's nodes: new ones first, then the old ones drained and deleted. --wait is for each step.

    One that was interrupted goes on where it was when it is said again.
    """
    from podwire.cluster.node_operations import BeingUpgraded

    if not max_surge + max_unavailable:
        raise click.UsageError("--max-surge and --max-unavailable are both 0: no node could be replaced")
    if not wait_s:
        raise click.UsageError("--wait: an upgrade waits for each of its steps; expected more than 0")
    if cancel:
        with operation(name, wait_s) as doing:
            left = doing.cancel_upgrade(target)
        click.echo(f"the upgrade of node pool {target} is cancelled; not replaced: {', '.join(left) or 'none'}")
        return
    with operation(name, wait_s) as doing:
        try:
            replaced = doing.upgrade(target, max_surge, max_unavailable)
        except (KeyboardInterrupt, Problem) as end:
            if not isinstance(end, BeingUpgraded) and doing.current().changes.upgrade(target) is not None:
                click.echo(f"the upgrade of node pool {target} is not complete: say it again to go on, or --cancel", err=True)
            raise
    for old, new in replaced:
        click.echo(f"node {old} replaced by {new}")
