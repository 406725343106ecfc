"""podwire doctor: what this kernel and user can and cannot do."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

import click

from podwire.cli.output import style

SIGNS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failed": ("failed", "red")}


@click.command()
@click.option("-o", "--output", type=click.Choice(["json"]), help="print JSON")
def doctor(output: str | None) -> None:
    """Say what this kernel and user can and cannot do, and what to do about it. Exits 1 when a cluster cannot run."""
    from podwire.cluster.doctor import examine

    findings = examine(os.environ)
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
