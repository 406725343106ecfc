"""podwire kubeconfig: print the user's credentials as a kubeconfig."""

from __future__ import annotations

import click

from podwire.cli.place import known, name_option


@click.command()
@name_option
def kubeconfig(name: str) -> None:
    """Print a kubeconfig for the cluster, as `podwire up` adds it to yours."""
    import yaml

    from podwire.cluster import identity, state
    from podwire.cluster import kubeconfig as entries

    place = known(name)
    entry = identity.admin_entry(place, name, f"https://127.0.0.1:{state.read(place).api_port}")
    click.echo(yaml.dump(entries.document(entry), Dumper=yaml.CSafeDumper, sort_keys=False), nl=False)
