"""podwire dump: everything that a report about a cluster needs, in one folder, without secrets."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

import click

from podwire.cli.place import known, name_option
from podwire.cluster.paths import Paths

OMITTED = frozenset({"Secret"})
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@click.command()
@name_option
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
def dump(name: str, folder: str) -> None:
    """Write logs, objects (no Secrets), rulesets, routes and process states into DIR: what to attach to a report."""
    import asyncio
    import dataclasses

    from podwire.cluster import doctor

    place = known(name)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.listdir(folder):
            raise click.ClickException(f"{folder} is not empty; name a new folder")
    except OSError as error:
        raise click.ClickException(f"cannot write {folder}: {error.strerror}") from None
    gaps: list[str] = []
    shutil.copytree(place.logs, os.path.join(folder, "logs"))
    _write(folder, "doctor.json", [dataclasses.asdict(finding) for finding in doctor.examine(os.environ)])
    status = _status(place, gaps)
    _write(folder, "status.json", status)
    _places(name, folder, status, gaps)
    gaps += asyncio.run(_objects(place, name, folder))
    for gap in gaps:
        click.echo(f"left out: {gap}", err=True)
    click.echo(f"written to {folder}")
    sys.exit(1 if gaps else 0)


def _status(place: Paths, gaps: list[str]) -> dict[str, Any]:
    from podwire.cluster import control_client
    from podwire.cluster.problem import Problem

    try:
        return control_client.status(place)
    except Problem as error:
        gaps.append(f"the state of the processes: {error}")
        return {}


def _places(name: str, folder: str, status: dict[str, Any], gaps: list[str]) -> None:
    from podwire.cluster import execution
    from podwire.cluster.problem import Problem

    for place in ("vpc", "control", "internet", *(f"node/{node['name']}" for node in status.get("nodes", ()))):
        target = os.path.join(os.path.abspath(folder), "places", place)
        os.makedirs(target)
        try:
            code = execution.run_own(name, place, "podwire.cluster.inspection", target)
        except Problem as error:
            gaps.append(f"{place}: {error}")
        else:
            if code:
                gaps.append(f"{place}: the inspection ended with status {code}")


async def _objects(place: Paths, name: str, folder: str) -> list[str]:
    """Write each kind's objects into ``objects/KIND.json``; give what could not be had."""
    from pathlib import Path

    from podwire.client import kubeconfig
    from podwire.client.api import Client
    from podwire.client.errors import ApiError, Unreachable
    from podwire.cluster import identity, state
    from podwire.cluster import kubeconfig as entries
    from podwire.cluster.apply import Applier

    entry = identity.admin_entry(place, name, f"https://127.0.0.1:{state.read(place).api_port}")
    gaps = []
    async with Client(kubeconfig.from_tree(entries.document(entry), Path(place.root))) as client:
        try:
            kinds = await Applier(client).kinds()
        except (ApiError, Unreachable) as error:
            return [f"the objects: {error}"]
        for kind in kinds:
            if kind.kind in OMITTED or "list" not in kind.verbs:
                continue
            try:
                listed = json.loads(await client.request("GET", kind.path("")))
            except (ApiError, Unreachable) as error:
                gaps.append(f"{kind.words}: {error}")
                continue
            _write(folder, f"objects/{kind.words}.json", [_bare(item) for item in listed["items"]])
    return gaps


def _bare(tree: dict[str, Any]) -> dict[str, Any]:
    """Leave out the annotation that repeats the whole object."""
    annotations = tree.get("metadata", {}).get("annotations") or {}
    annotations.pop(LAST_APPLIED, None)
    return tree


def _write(folder: str, name: str, tree: object) -> None:
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(tree, stream, indent=2)
