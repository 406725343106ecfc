"""podwire logs: what the system's own processes wrote."""

from __future__ import annotations

import os
import select
import sys

import click

from podwire.cli.place import known, name_option

CHUNK = 1 << 16
LOOK_AGAIN_S = 0.2


@click.command()
@name_option
@click.option("-f", "--follow", is_flag=True, help="go on printing what is written")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="only the last N lines of each log")
@click.argument("process", required=False)
def logs(name: str, follow: bool, tail: int | None, process: str | None) -> None:
    """Print the log of PROCESS (as `podwire status` names it), or of all, each line behind its process."""
    place = known(name)
    files = {entry.removesuffix(".log"): f"{place.logs}/{entry}" for entry in sorted(os.listdir(place.logs)) if entry.endswith(".log")}
    if process is not None:
        # Door starts init, which writes where door does.
        wanted = "door" if process == "init" else os.path.basename(place.log(process)).removesuffix(".log")
        if wanted not in files:
            raise click.UsageError(f"there is no process {process!r}; there are: {', '.join(files) or 'none'}")
        files = {wanted: files[wanted]}
    width = max(map(len, files), default=0) if process is None else 0
    positions: dict[str, int] = {}
    for label, file in files.items():
        positions[label] = _print(label if process is None else "", width, file, 0, tail)
    while follow:
        # Files tell nobody that they grew, so they are looked at; standard output tells when its reader has gone.
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLERR)
        if poll.poll(LOOK_AGAIN_S * 1000):
            return
        for label, file in files.items():
            positions[label] = _print(label if process is None else "", width, file, positions[label], None)


def _print(label: str, width: int, file: str, position: int, tail: int | None) -> int:
    """Print the whole lines from a position on; give the position after them."""
    with open(file, "rb") as stream:
        if stream.seek(0, os.SEEK_END) < position:
            position = 0  # the log was turned over
        stream.seek(position)
        lines = stream.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n") and position:
        lines.pop()
    shown = lines if tail is None else lines[max(0, len(lines) - tail) :]
    prefix = f"{label:{width}}  " if label else ""
    for line in shown:
        click.echo(prefix + line.decode(errors="replace").rstrip("\n"))
    return position + sum(map(len, lines))
