"""podwire doctor: what this kernel and user can and cannot do."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from ipaddress import IPv4Network

import click

from podwire.cli.output import style

SIGNS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failed": ("failed", "red")}


@click.command()
@click.option("--name", metavar="NAME", help="look at the address ranges of this cluster  [default: those of a new one]")
@click.option("-o", "--output", type=click.Choice(["json"]), help="print JSON")
def doctor(name: str | None, output: str | None) -> None:
    """Say what this kernel and user can and cannot do, and what to do about it. Exits 1 when a cluster cannot run."""
    from podwire.cluster.doctor import examine

    findings = examine(os.environ, None if name is None else _ranges(name))
    healthy = all(finding.status != "failed" for finding in findings)
    if output == "json":
        click.echo(json.dumps({"ok": healthy, "findings": [dataclasses.asdict(finding) for finding in findings]}, indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            word, colour = SIGNS[finding.status]
            click.echo(f"{style(f'{word:8}', colour)} {finding.name:{width}}  {finding.found}")
            if finding.advice and finding.status != "ok":
                click.echo(f"{'':8} {'':{width}}  {finding.advice}")
        if not healthy:
            click.echo("a cluster cannot run here", err=True)
    sys.exit(0 if healthy else 1)


def _ranges(name: str) -> dict[str, IPv4Network]:
    from podwire.cli.place import known
    from podwire.cluster import spec, state

    return vars(spec.parse(json.dumps(state.read(known(name)).spec)).ranges)
