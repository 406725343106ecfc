"""podwire node: the nodes of a running cluster, as machines that fail, come back, come and go.

What belongs here: words, options and what is printed. What is done is in ``cluster.node_operations``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from podwire.cli.output import StatusLine, node_state, table
from podwire.cli.place import Seconds, known, name_option

if TYPE_CHECKING:
    from podwire.cluster.node_operations import Operation


def wait_option(default: float = 120.0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the option ``--wait``."""
    words = {"default": default, "show_default": True, "metavar": "SECONDS", "help": "0 does not wait"}
    return click.option("--wait", "wait_s", type=Seconds(), **words)  # type: ignore[arg-type]


@contextlib.contextmanager
def operation(cluster: str, wait_s: float) -> Iterator[Operation]:
    """An operation on a cluster, with its progress on a terminal."""
    from podwire.cluster.node_operations import Operation

    line = StatusLine()
    try:
        yield Operation(known(cluster), cluster, wait_s, line)
    finally:
        line.clear()


@click.group()
def node() -> None:
    """Stop, start, drain, add and delete nodes."""


@node.command("list")
@name_option
@click.option("-o", "--output", type=click.Choice(["json"]), help="for a program")
def list_(name: str, output: str | None) -> None:
    """List the nodes, those without power too."""
    from podwire.cluster import control_client, state

    report = control_client.status(state.paths(name, os.environ))
    told = {one["name"]: one for one in report["nodes"]}
    with operation(name, 0) as doing:
        now = doing.current()
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "pool": one.pool,
            "zone": one.zone,
            "addresses": [str(address) for address in one.addresses],
            "podRanges": [str(network) for network in one.pod_ranges],
            "power": "on" if one.name in now.running else "off",
            "network": "cut off" if one.zone in now.changes.stopped_zones else "joined",
            "ready": bool(told.get(one.name, {}).get("ready", False)),
            "unschedulable": bool(told.get(one.name, {}).get("unschedulable", False)),
        }
        for one in now.nodes
    ]
    click.echo(json.dumps(rows) if output == "json" else table(tuple(map(str.upper, _COLUMNS)), [_cells(row) for row in rows]))


_COLUMNS = ("name", "pool", "zone", "addresses", "pods", "power", "network", "state")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    where = (row["name"], row["pool"], row["zone"], ",".join(row["addresses"]), ",".join(row["podRanges"]))
    return (*where, row["power"], row["network"], node_state(row))


@node.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@name_option
@wait_option()
def stop(nodes: tuple[str, ...], name: str, wait_s: float) -> None:
    """Pull the plug: everything on the nodes ends at once."""
    with operation(name, wait_s) as doing:
        doing.stop(nodes)
    _say(nodes, "stopped")


@node.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@name_option
@wait_option()
def start(nodes: tuple[str, ...], name: str, wait_s: float) -> None:
    """Switch nodes on again, as machines that boot."""
    with operation(name, wait_s) as doing:
        doing.start(nodes)
    _say(nodes, "started")


@node.command()
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@name_option
@wait_option()
def restart(nodes: tuple[str, ...], name: str, wait_s: float) -> None:
    """Pull the plug and put it back."""
    with operation(name, wait_s) as doing:
        doing.restart(nodes)
    _say(nodes, "restarted")


@node.command(short_help="Cordon a node and evict its Pods.")
@click.argument("target", metavar="NODE")
@name_option
@wait_option(600.0)
def drain(target: str, name: str, wait_s: float) -> None:
    """Cordon a node and evict its Pods, but for those of DaemonSets; PodDisruptionBudgets are obeyed."""
    with operation(name, wait_s) as doing:
        count = doing.drain(target)
    click.echo(f"node {target} drained ({count} Pods)")


@node.command(short_help="Delete a node, as a VM is deleted.")
@click.argument("target", metavar="NODE")
@name_option
@wait_option()
def delete(target: str, name: str, wait_s: float) -> None:
    """Delete a node, as a VM is deleted: drain it before, or its Pods are lost and made again elsewhere."""
    with operation(name, wait_s) as doing:
        doing.delete(target)
    _say([target], "deleted")


@node.command()
@click.argument("target", metavar="[NODE]", required=False, default="")
@click.option("--pool", metavar="NAME", default="", help="of which node pool  [default: the first]")
@click.option("--zone", metavar="NAME", default="", help="in which zone  [default: where the pool has the fewest]")
@name_option
@wait_option()
def add(target: str, pool: str, zone: str, name: str, wait_s: float) -> None:
    """Add a node; without a name it gets one as GKE makes them."""
    with operation(name, wait_s) as doing:
        made = doing.add(target, pool, zone)
    _say([made], "added")


def _say(nodes: tuple[str, ...] | list[str], word: str) -> None:
    for each in nodes:
        click.echo(f"node {each} {word}")
