"""podwire up: make a cluster, or start one that was kept."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import click

from podwire.cli.output import style
from podwire.cli.place import Seconds


@click.command()
@click.option("--name", metavar="NAME", help="the cluster's name  [default: podwire, or what the file says]")
@click.option("-f", "--file", "file", metavar="FILE", help="a Cluster manifest")
@click.option("--zones", type=click.IntRange(1, 26), metavar="N", help="how many zones  [default: 3]")
@click.option("--nodes-per-zone", type=click.IntRange(0, 100), metavar="N", help="nodes in each zone  [default: 1]")
@click.option("--wait", "wait_s", type=Seconds(), default=120.0, show_default=True, metavar="SECONDS", help="0 does not wait")
@click.option("--api-port", type=click.IntRange(1, 65535), metavar="PORT", help="the API's port on 127.0.0.1  [default: a free one, kept]")
@click.option("--kubeconfig", metavar="PATH", help="the file that gets the context  [default: the one that kubectl uses]")
@click.option("--privileged", is_flag=True, help="limit what containers use, by cgroups: takes true root, or a cgroup of one's own")
@click.option("--no-kubeconfig", is_flag=True, help="add no context anywhere")
def up(
    name: str | None,
    file: str | None,
    zones: int | None,
    nodes_per_zone: int | None,
    wait_s: float,
    api_port: int | None,
    kubeconfig: str | None,
    privileged: bool,
    no_kubeconfig: bool,
) -> None:
    """Make a cluster of nodes in zones, and wait until it is ready."""
    from podwire.cluster import kubeconfig as entries
    from podwire.cluster import lifecycle, spec
    from podwire.cluster.problem import Problem

    began = time.monotonic()
    wanted = lifecycle.Wanted(
        name=name,
        spec_text=_read(file) if file else None,
        spec_file="<stdin>" if file == "-" else file or "",
        zones=zones,
        nodes_per_zone=nodes_per_zone,
        api_port=api_port or 0,
        kubeconfig=None if no_kubeconfig else entries.target(kubeconfig, os.environ),
        wait_s=wait_s,
        privileged=privileged,
    )
    progress = Progress()
    try:
        report = lifecycle.up(wanted, os.environ, progress)
    except spec.Invalid as invalid:
        raise Problem(str(invalid), 2) from None
    except entries.Unusable as unusable:
        raise Problem(str(unusable)) from None
    except KeyboardInterrupt:
        raise Problem("interrupted: nothing is left of what was begun", 130) from None
    finally:
        progress.clear()
    word = "is ready" if report["ready"] else "has started"
    click.echo(f'cluster "{report["name"]}" {word} ({time.monotonic() - began:.1f} s), API at {report["apiServer"]}')
    if wanted.kubeconfig:
        click.echo(f'kubectl context "podwire-{report["name"]}" is in {wanted.kubeconfig}')


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read()
        with open(file, encoding="utf-8") as stream:
            return stream.read()
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise click.UsageError(f"cannot read {file}: {error}") from None


class Progress:
    """One line on a terminal that says what is waited for; nothing anywhere else."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, report: dict[str, Any]) -> None:
        if not self._shown:
            return
        waiting = report["waiting"]
        total = 2 * len(report["processes"])
        head = style(f"[{max(0, total - len(waiting))}/{total}]", "cyan", stream=sys.stderr)
        text = f"{head} waiting: {waiting[0]}" if waiting else head
        width = os.get_terminal_size(2).columns or 80  # 0 where nobody has told the terminal
        sys.stderr.write("\r\x1b[K" + text[: width - 1 + len(text) - len(click.unstyle(text))])
        sys.stderr.flush()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
