"""podwire apiserver: the lab's Kubernetes API. The lab starts it; a person has no need to."""

from __future__ import annotations

import click


@click.command(hidden=True, add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def apiserver(arguments: tuple[str, ...]) -> None:
    """Serve the Kubernetes API on given sockets."""
    from podwire.apiserver.serve import main

    main(list(arguments))
