"""``podwire agent NAME...``: run agents as one process against any Kubernetes API server.

What belongs here: the table of names and the options. The lab starts its agents with exactly this command line.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from podwire.daemon.run import Agent

AGENTS = {
    "pods": "podwire.pods.agent:run",
    "cni": "podwire.pods.cni.agent:run",
    "services": "podwire.services.agent:run",
    "workloads": "podwire.workloads.controller:run",
    "loadbalancers": "podwire.loadbalancers.controller:run",
    "vpc": "podwire.vpc.agent:run",
    "publish": "podwire.vpc.publish:run",
    "dns": "podwire.dns.agent:run",
}
PER_NODE = ("pods", "services")


def load(name: str) -> Agent:
    """Import an agent. Raises KeyError for an unknown name."""
    module, function = AGENTS[name].split(":")
    found: Agent = getattr(importlib.import_module(module), function)
    return found


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True, type=click.Choice(list(AGENTS)))
@click.option("--kubeconfig", metavar="FILE", help="Credentials and address of the API server; without: those of the Pod this runs in.")
@click.option("--node", metavar="NAME", default="", help="The node that this process serves (needed by: " + ", ".join(PER_NODE) + ").")
@click.option(
    "--config", metavar="FILE", help="The agents' configuration, or for services kube-proxy's (KubeProxyConfiguration); JSON or YAML."
)
@click.option("--cleanup", is_flag=True, help="Take away what the agent put on this node, and end (services).")
def agent(names: tuple[str, ...], kubeconfig: str | None, node: str, config: str | None, cleanup: bool) -> None:
    """Run agents: one process, any Kubernetes API server. NAME is one of

    pods, cni, services, workloads, loadbalancers, vpc, publish, dns.
    """
    if cleanup:
        _clean_up(names, config)
        return
    needing = [name for name in names if name in PER_NODE]
    if needing and not node and not _named_in(config):
        raise click.UsageError(f"{', '.join(needing)} runs on a node: give --node NAME")
    from podwire.daemon.run import run

    sys.exit(run([(name, load(name)) for name in dict.fromkeys(names)], kubeconfig=kubeconfig, node=node, config=config))


def _named_in(config: str | None) -> bool:
    """Say whether a configuration names the node; what is wrong with it is told when it is used."""
    from podwire.daemon.config import ConfigError, load

    try:
        return bool(load(config).node_name)
    except ConfigError:
        return True


def _clean_up(names: tuple[str, ...], config: str | None) -> None:
    if set(names) != {"services"}:
        raise click.UsageError("--cleanup goes with services alone")
    from podwire.daemon.config import ConfigError, load
    from podwire.services import cleanup

    try:
        for words in cleanup.remove(load(config)):
            click.echo(f"removed: {words}")
    except (ConfigError, OSError) as error:
        raise click.ClickException(str(error)) from error
