"""podwire status: processes, nodes, load balancers; the exit status is 1 when something is not ready."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from podwire.cli.output import node_state, style, table
from podwire.cli.place import name_option


@click.command()
@name_option
@click.option("-o", "--output", type=click.Choice(["json"]), help="for a program")
def status(name: str, output: str | None) -> None:
    """Show how a cluster is."""
    from podwire.cluster import control_client, state

    report = control_client.status(state.paths(name, os.environ))
    click.echo(json.dumps(report) if output == "json" else "\n\n".join(_sections(report)))
    if not report["ready"]:
        sys.exit(1)


def _sections(report: dict[str, Any]) -> list[str]:
    word = style("ready", "green") if report["ready"] else style("not ready", "red")
    sections = [f"cluster {report['name']} is {word}, API at {report['apiServer']}"]
    processes = [
        (process["name"], process["pid"] or "-", process["state"], process["restarts"], process["lastError"] or "")
        for process in report["processes"]
    ]
    sections.append(table(("PROCESS", "PID", "STATE", "RESTARTS", "LAST ERROR"), processes))
    if report["nodes"]:
        nodes = [
            (
                node["name"],
                " ".join(filter(None, (node_state(node), ", ".join(node.get("pressure", ())) if node["ready"] else node.get("reason")))),
                node.get("zone", ""),
                node.get("address", ""),
            )
            for node in report["nodes"]
        ]
        sections.append(table(("NODE", "STATE", "ZONE", "ADDRESS"), nodes))
    if report["loadBalancers"]:
        balancers = [
            (one["service"], one["address"], ",".join(map(str, one.get("ports", []))), " ".join(one.get("urls", [])))
            for one in report["loadBalancers"]
        ]
        sections.append(table(("LOAD BALANCER", "ADDRESS", "PORTS", "ON THIS MACHINE"), balancers))
    if report["waiting"]:
        sections.append("\n".join(["not ready:", *(f"  {line}" for line in report["waiting"])]))
    return sections
