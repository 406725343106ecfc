"""podwire apply: apply manifests without kubectl."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from podwire.cli.place import known, name_option
from podwire.cluster.paths import Paths

SUFFIXES = (".yaml", ".yml", ".json")


@click.command()
@name_option
@click.option("-f", "--filename", "names", multiple=True, required=True, metavar="FILE|DIR|-", help="a manifest, a folder, or - for stdin")
@click.option("-n", "--namespace", default="default", show_default=True, help="for objects that name none")
def apply(name: str, names: tuple[str, ...], namespace: str) -> None:
    """Apply manifests as `kubectl apply` does, without kubectl."""
    import asyncio

    place = known(name)
    documents = [document for given in names for document in _documents(given)]
    if not documents:
        raise click.ClickException(f"no objects found in {', '.join(names)}")
    sys.exit(asyncio.run(_apply(place, name, documents, namespace)))


async def _apply(place: Paths, name: str, documents: list[tuple[str, dict[str, Any]]], namespace: str) -> int:
    """Apply one after another; what cannot be is told by file and line, and the others are applied all the same, as kubectl does."""
    from pathlib import Path

    from podwire.client import kubeconfig
    from podwire.client.api import Client
    from podwire.client.errors import ApiError, Unreachable
    from podwire.cluster import identity, state
    from podwire.cluster import kubeconfig as entries
    from podwire.cluster.apply import Applier, NoKind

    entry = identity.admin_entry(place, name, f"https://127.0.0.1:{state.read(place).api_port}")
    status = 0
    async with Client(kubeconfig.from_tree(entries.document(entry), Path(place.root))) as client:
        applier = Applier(client)
        for where, tree in documents:
            try:
                async for done in applier.apply([tree], namespace):
                    click.echo(f"{done.kind.words}/{done.name} {done.action}")
            except (ApiError, NoKind) as refused:
                status = 1
                click.echo(f"{where}: {refused}", err=True)
            except Unreachable as refused:
                click.echo(f"cluster {name!r} does not answer: {refused}. Is it running? podwire status --name {name}", err=True)
                return 1
    return status


def _documents(given: str) -> list[tuple[str, dict[str, Any]]]:
    """Give each object of a file, folder or standard input with where it stands (``file:line``). Lists are taken apart."""
    if given == "-":
        return _parse("<stdin>", sys.stdin.buffer.read())
    if os.path.isdir(given):
        files = [os.path.join(given, entry) for entry in sorted(os.listdir(given)) if entry.endswith(SUFFIXES)]
        return [document for file in files for document in _documents(file)]
    try:
        with open(given, "rb") as stream:
            return _parse(given, stream.read())
    except OSError as error:
        raise click.ClickException(f"cannot read {given}: {error.strerror}") from None


def _parse(file: str, text: bytes) -> list[tuple[str, dict[str, Any]]]:
    import yaml

    found: list[tuple[str, dict[str, Any]]] = []
    loader = yaml.CSafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            tree = loader.construct_document(node) if node else None
            if node is None or tree is None:
                continue
            where = f"{file}:{node.start_mark.line + 1}"
            if not isinstance(tree, dict) or not tree.get("kind") or not tree.get("apiVersion"):
                raise click.ClickException(f"{where}: expected an object with apiVersion and kind")
            items = tree.get("items") if str(tree["kind"]).endswith("List") else None
            found += [(where, item) for item in items] if isinstance(items, list) else [(where, tree)]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise click.ClickException(f"{file}:{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: not YAML: {error}") from None
    finally:
        loader.dispose()
    return found
