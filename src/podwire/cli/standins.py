"""podwire standins: one process a node that plays the containers which have no program. The lab starts it."""

from __future__ import annotations

import sys

import click


@click.command(hidden=True, add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def standins(arguments: tuple[str, ...]) -> None:
    """Play the containers of a node that have no program."""
    from podwire.pods.standins.process import main

    sys.exit(main(list(arguments)))
