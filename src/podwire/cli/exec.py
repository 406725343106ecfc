"""podwire exec: any program of this machine, at a place in the network."""

from __future__ import annotations

import sys

import click

from podwire.cli.place import name_option


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.argument("where")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def exec_(name: str, where: str, command: tuple[str, ...]) -> None:
    """Run a program at WHERE: internet, vpc, control, node/NAME or pod/NAMESPACE/NAME.

    Stdin, terminal, signals and exit status pass through.
    """
    from podwire.cluster import execution

    words = list(command[1:] if command[:1] == ("--",) else command)
    if not words:
        raise click.UsageError("expected a command: podwire exec WHERE -- COMMAND...")
    sys.exit(execution.run(name, where, words))
