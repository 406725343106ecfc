"""``podwire cni``: put the CNI plugin where container runtimes look for it, and answer its calls.

What belongs here: the options, and the text of the program that is written. The plugin itself is ``podwire.pods.cni``.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click

import podwire

_PROGRAM = """\
#!{python} -IS
import sys
sys.path.append({package!r})
from podwire.pods.cni.program import main
main({installed!r})
"""
_NAME = "podwire-cni"


@click.group()
def cni() -> None:
    """The CNI plugin, for container runtimes."""


@cni.command(short_help="Write the program podwire-cni into a folder.")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def install(folder: Path) -> None:
    """Write the program podwire-cni into FOLDER (where the runtime's CNI_PATH leads: often /opt/cni/bin)."""
    package = str(Path(podwire.__file__).resolve().parent.parent)
    installed = tuple(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    text = _PROGRAM.format(python=sys.executable, package=package, installed=installed)
    if len(sys.executable) > 250:
        raise click.ClickException(f"{sys.executable} is too long a path for the first line of a program")
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f".{_NAME}.{os.getpid()}"
    new.write_text(text)
    new.chmod(0o755)
    new.replace(folder / _NAME)
    click.echo(f"{folder / _NAME}")


@cni.command(short_help="Answer the calls of podwire-cni on this machine.")
@click.option("--socket", "path", default="/run/podwire/cni.sock", show_default=True, metavar="PATH", help="Where the program asks.")
def serve(path: str) -> None:
    """Answer the calls of podwire-cni on this machine, so that it need not work by itself."""
    from podwire.pods.cni.server import Server

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    server = Server(path, logging.getLogger("cni"))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.close())
    server.serve()
