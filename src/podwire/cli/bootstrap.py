"""podwire bootstrap: put the addons' objects into a new cluster. The lab starts it; a person has no need to."""

from __future__ import annotations

import json
import sys

import click


@click.command(hidden=True)
@click.option("--kubeconfig", required=True)
@click.option("--objects", required=True, help="a JSON list of objects")
def bootstrap(kubeconfig: str, objects: str) -> None:
    """Apply the objects in the file, in order."""
    import asyncio

    with open(objects, encoding="utf-8") as stream:
        trees = json.load(stream)
    sys.exit(asyncio.run(_apply(kubeconfig, trees)))


async def _apply(kubeconfig: str, trees: list[dict[str, object]]) -> int:
    from podwire.client.api import Client
    from podwire.cluster.apply import Applier

    async with Client.from_kubeconfig(kubeconfig) as client:
        async for done in Applier(client).apply(trees, "kube-system"):
            click.echo(f"{done.kind.words}/{done.name} {done.action}", err=True)
    return 0
