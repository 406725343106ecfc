"""podwire apply: apply manifests without kubectl."""

from __future__ import annotations

import math
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
@click.option("-n", "--namespace", metavar="NAME", default="default", show_default=True, help="for objects that name none")
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

    from podwire.lib import yaml_limits

    found: list[tuple[str, dict[str, Any]]] = []
    # JSON, which the API speaks, has neither dates nor bytes: kubectl leaves both the texts that they are.
    constructors: dict[str | None, Any] = dict(yaml.CSafeLoader.yaml_constructors)
    for word in ("timestamp", "binary"):
        constructors[f"tag:yaml.org,2002:{word}"] = yaml.CSafeLoader.construct_yaml_str
    loader = type("Loader", (yaml.CSafeLoader,), {"yaml_constructors": constructors})(text)
    try:
        yaml_limits.check(text, yaml.CSafeLoader)
        while loader.check_node():
            node = loader.get_node()
            tree = loader.construct_document(node) if node else None
            if node is None or tree is None:
                continue
            where = f"{file}:{node.start_mark.line + 1}"
            tree = _plain(tree, where)
            items = tree.get("items") if isinstance(tree, dict) and str(tree.get("kind")).endswith("List") else None
            found += [(where, _object(item, where)) for item in (items if isinstance(items, list) else [tree])]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise click.ClickException(f"{file}:{line}: not YAML: {error.problem or error.context}") from None
    except yaml_limits.Excessive as error:
        raise click.ClickException(f"{file}:{error.line}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise click.ClickException(f"{file}: not YAML: {error}") from None
    finally:
        loader.dispose()
    return found


def _plain(tree: Any, where: str) -> Any:
    """Give the tree as JSON has it: texts as keys, a number where there is one."""
    if isinstance(tree, dict):
        for key in tree:
            if not isinstance(key, (str, int, float, bool)):
                raise click.ClickException(f"{where}: {key!r} cannot be the name of a field")
        words = {True: "true", False: "false"}
        return {words[key] if isinstance(key, bool) else str(key): _plain(value, where) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_plain(item, where) for item in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        raise click.ClickException(f"{where}: {tree} is no number that JSON has; put it in quotes")
    return tree


def _object(tree: Any, where: str) -> dict[str, Any]:
    if not isinstance(tree, dict) or not isinstance(tree.get("kind"), str) or not isinstance(tree.get("apiVersion"), str):
        raise click.ClickException(f"{where}: expected an object with apiVersion and kind")
    metadata = tree.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise click.ClickException(f"{where}: {tree['kind']}: expected metadata.name, the name of the object")
    for field, kind in (("namespace", str), ("annotations", dict)):
        if not isinstance(metadata.get(field) or kind(), kind):
            expected = "a text" if kind is str else "a mapping"
            raise click.ClickException(f"{where}: {tree['kind']} {metadata['name']}: metadata.{field}: expected {expected}")
    return tree
