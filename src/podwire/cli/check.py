"""podwire check: who reaches whom, with real packets."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from podwire.cli.place import known, name_option

if TYPE_CHECKING:
    from podwire.cluster.checking import Result
    from podwire.cluster.checks import Check, Connection
    from podwire.cluster.paths import Paths


@click.command()
@name_option
@click.option("-o", "--output", type=click.Choice(["json"]), help="for a program")
@click.argument("file", metavar="FILE|-")
def check(name: str, output: str | None, file: str) -> None:
    """Check who reaches whom: a YAML list of checks as netassert has it, tried with real packets.

    Exit status 1 when a check does not hold. A source is a Pod, all Pods of a Deployment, or a place of the lab.
    """
    import asyncio

    from podwire.cluster import checking

    place = known(name)
    checks = _read(file)
    planned = asyncio.run(_plan(place, name, checks))
    results = checking.carry_out(name, planned, _progress)
    good = [_holds(one) for one in results]
    if output == "json":
        click.echo(json.dumps([_tree(one, good=ok) for one, ok in zip(results, good, strict=True)]))
    else:
        for one, ok in zip(results, good, strict=True):
            for line in _lines(one, good=ok):
                click.echo(line)
        count = f"{len(results)} check{'' if len(results) == 1 else 's'}"
        click.echo(f"{count}, {good.count(False)} failed" if False in good else f"{count}, all hold")
    sys.exit(0 if all(good) else 1)


def _progress(words: str) -> None:
    if sys.stderr.isatty():
        click.echo(words, err=True)


async def _plan(place: Paths, name: str, checks: list[Check]) -> list[tuple[Check, list[Connection] | str]]:
    from pathlib import Path

    from podwire.client import kubeconfig
    from podwire.client.api import Client
    from podwire.client.errors import Unreachable
    from podwire.cluster import checking, identity, state
    from podwire.cluster import kubeconfig as entries
    from podwire.cluster.problem import Problem

    entry = identity.admin_entry(place, name, f"https://127.0.0.1:{state.read(place).api_port}")
    async with Client(kubeconfig.from_tree(entries.document(entry), Path(place.root))) as client:
        try:
            return [(one, await checking.connections(client, one)) for one in checks]
        except Unreachable as error:
            raise Problem(f'cluster "{name}" does not answer: {error}. Is it running? podwire status --name {name}') from None


def _read(file: str) -> list[Check]:
    import yaml

    from podwire.cluster.checks import BadChecks, read
    from podwire.lib import yaml_limits

    if file == "-":
        label, text = "<stdin>", sys.stdin.buffer.read()
    else:
        label = file
        with open(os.path.expanduser(file), "rb") as stream:
            text = stream.read()
    items: list[tuple[str, Any]] = []
    loader = yaml.CSafeLoader(text)
    try:
        yaml_limits.check(text, yaml.CSafeLoader)
        while loader.check_node():
            node = loader.get_node()
            tree = loader.construct_document(node)
            if node is None or tree is None:
                continue
            if not isinstance(tree, list):
                raise BadChecks(f"{label}:{node.start_mark.line + 1}: expected a list of checks")
            items += [(f"{label}:{one.start_mark.line + 1}", value) for one, value in zip(node.value, tree, strict=True)]
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadChecks(f"{label}:{line}: not YAML: {error.problem or error.context}") from None
    except yaml_limits.Excessive as error:
        raise BadChecks(f"{label}:{error.line}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise BadChecks(f"{label}: not YAML: {error}") from None
    finally:
        loader.dispose()
    if not items:
        raise BadChecks(f"{label}: no checks are there")
    return read(items)


def _holds(result: Result) -> bool:
    from podwire.cluster import checks

    return not result.failure and all(checks.holds(result.check, outcome) for _, outcome in result.outcomes)


def _lines(result: Result, *, good: bool) -> list[str]:
    """A check that holds is a line; of another one it is said what does not."""
    from podwire.cluster import checks

    said = [(checks.words(result.check, one, outcome), checks.holds(result.check, outcome)) for one, outcome in result.outcomes]
    if good:
        more = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        return [f"  ✔ {result.check.name}: {said[0][0]}{more}"]
    if result.failure:
        return [f"  ✘ {result.check.name}: {result.failure}"]
    return [f"  ✘ {result.check.name}: {checks.expectation(result.check)}", *(f"      {words}" for words, ok in said if not ok)]


def _tree(result: Result, *, good: bool) -> dict[str, Any]:
    check = result.check
    tried = [{"from": one.where, "to": one.host, "outcome": outcome} for one, outcome in result.outcomes]
    told = {"name": check.name, "holds": good, "protocol": check.protocol, "port": check.port, "connections": tried}
    return {**told, "error": result.failure} if result.failure else told
