"""``podwire``: the table of commands, loaded one at a time, and how every command fails.

What belongs here: which word is which command, the options that all share, exit statuses. What must not: an import that a
command could do itself. ``podwire status`` imports click and little else; a command that needs no client loads none.

Exit statuses: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C).
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from podwire.cluster.problem import Problem

DONE, FAILED, WRONG_USAGE = 0, 1, 2

# word: (module:attribute, help, hidden)
COMMANDS: dict[str, tuple[str, str, bool]] = {
    "up": ("podwire.cli.up:up", "Make a cluster, or start one that was kept.", False),
    "down": ("podwire.cli.down:down", "End a cluster and delete its state.", False),
    "list": ("podwire.cli.list:list_", "List the clusters.", False),
    "status": ("podwire.cli.status:status", "Show processes, nodes and load balancers.", False),
    "node": ("podwire.cli.node:node", "Stop, start, drain, add and delete nodes.", False),
    "zone": ("podwire.cli.zone:zone", "Cut a zone off, and join it again.", False),
    "node-pool": ("podwire.cli.node_pool:node_pool", "Upgrade a node pool.", False),
    "exec": ("podwire.cli.exec:exec_", "Run a program at a place in the network.", False),
    "apply": ("podwire.cli.apply:apply", "Apply manifests.", False),
    "kubectl": ("podwire.cli.kubectl:kubectl", "Run kubectl against the cluster.", False),
    "kubeconfig": ("podwire.cli.kubeconfig:kubeconfig", "Print the cluster's kubeconfig.", False),
    "logs": ("podwire.cli.logs:logs", "Show the logs of the cluster's own processes.", False),
    "check": ("podwire.cli.check:check", "Check who reaches whom, with real packets.", False),
    "capture": ("podwire.cli.capture:capture", "Write packets at a place in the network as pcap.", False),
    "dump": ("podwire.cli.dump:dump", "Write everything that a report needs into a folder.", False),
    "image": ("podwire.cli.image:image", "Load, list, name and remove the images that containers run.", False),
    "doctor": ("podwire.cli.doctor:doctor", "Say what this machine and user can and cannot do.", False),
    "version": ("podwire.cli.version:version", "Show the version.", False),
    "cni": ("podwire.cli.cni:cni", "The CNI plugin, for container runtimes.", False),
    "agent": ("podwire.cli.agent:agent", "Run agents against any Kubernetes API.", False),
    "apiserver": ("podwire.cli.apiserver:apiserver", "Run the lab's Kubernetes API.", True),
    "bootstrap": ("podwire.cli.bootstrap:bootstrap", "Apply the objects that every cluster has.", True),
    "standins": ("podwire.cli.standins:standins", "Play the containers that have no program.", True),
    "supervisor": ("podwire.cli.supervisor:supervisor", "Run a lab's processes.", True),
}


class Commands(click.Group):
    """The table as a click group: a command's module is imported when its word is used, never for the list of all."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [word for word, (_, _, hidden) in COMMANDS.items() if not hidden]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(word, text) for word, (_, text, hidden) in COMMANDS.items() if not hidden])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def podwire() -> None:
    """The network of a Kubernetes cluster, with real packets."""


def _open_standard_files() -> None:
    """Open what the caller closed of stdin, stdout and stderr, or the next file or socket would be taken for it (exec passes them on)."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            assert os.open(os.devnull, os.O_RDWR) == number
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and end the process with its status. Raises SystemExit."""
    _open_standard_files()
    try:
        status = podwire.main(list(arguments) if arguments is not None else None, prog_name="podwire", standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("podwire: interrupted", err=True)
        sys.exit(130)
    except Problem as problem:
        click.echo(f"podwire: {problem}", err=True)
        sys.exit(problem.status)
    except click.ClickException as failure:
        failure.show()
        sys.exit(failure.exit_code)
    except BrokenPipeError:
        # Whoever read our output has enough (`| head`): quiet, and no second attempt when Python flushes at its end.
        _abandon_output()
        sys.exit(FAILED)
    except OSError as error:
        # A full disk, a file that may not be read: the system's own words say which.
        click.echo(f"podwire: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", err=True)
        try:
            sys.stdout.flush()
        except OSError:
            _abandon_output()
        sys.exit(FAILED)
    sys.exit(status if isinstance(status, int) else DONE)


def _abandon_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def entry() -> None:
    """The program ``podwire``: run its command line, and end without what an interpreter does at its end."""
    status: object = FAILED
    try:
        main()
    except SystemExit as end:
        status = end.code
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or FAILED
    os._exit(status if isinstance(status, int) else DONE)
