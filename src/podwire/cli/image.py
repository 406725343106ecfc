"""podwire image: the images that containers run, shared by all clusters of this user."""

from __future__ import annotations

import json
import operator
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from podwire.cli.output import table
from podwire.cluster import state
from podwire.cluster.problem import Problem

if TYPE_CHECKING:
    from podwire.images.store import Store

T = TypeVar("T")
_UNITS = ("B", "kB", "MB", "GB", "TB")
_ID_DIGITS = 13


@click.group("image")
def image() -> None:
    """Load, list, name and remove the images that containers run. All clusters of this user share them."""


@image.command("load", short_help="Take in an image from an archive or a folder.")
@click.argument("archive", metavar="TAR|OCI-DIR|-")
@click.option("--name", metavar="NAME", default="", help="what to call the image  [default: what the archive says]")
def load(archive: str, name: str) -> None:
    """Take in an image from an archive (of skopeo, docker save or buildkit), from a folder in the OCI layout, or from standard input (-).

    A container with this image then runs it; until now a stand-in has played it.
    """
    source = sys.stdin.buffer if archive == "-" else archive
    for loaded in _asked(lambda store: store.load(source, name)):
        click.echo(f"loaded {loaded}")


@image.command("pull")
@click.argument("name", metavar="NAME")
@click.option("--plain-http", is_flag=True, help="the registry speaks HTTP, or HTTPS that proves nothing  [default: only on loopback]")
def pull(name: str, plain_http: bool) -> None:
    """Take in an image from the registry that its name says, by skopeo."""
    from podwire.images.pull import pull

    for pulled in _asked(lambda store: pull(store, name, plain_http=plain_http)):
        click.echo(f"pulled {pulled}")


@image.command("ls")
@click.option("-o", "--output", type=click.Choice(["json"]), help="for a program")
def list_(output: str | None) -> None:
    """List the images."""
    catalogue = _asked(lambda store: store.catalogue())
    if output == "json":
        trees = [
            {
                "names": catalogue.names_of(one.id),
                "id": one.id,
                "digests": list(one.digests),
                "layers": list(one.layers),
                "size": one.size,
                "platform": one.platform,
                "created": one.created,
            }
            for one in catalogue.images.values()
        ]
        click.echo(json.dumps(trees))
        return
    listed = [(name, catalogue.images[wanted]) for name, wanted in sorted(catalogue.names.items())]
    listed += [("<none>", one) for one in catalogue.images.values() if not catalogue.names_of(one.id)]
    if listed:
        rows = [(name, one.id.removeprefix("sha256:")[:_ID_DIGITS], one.platform, _readable(one.size)) for name, one in listed]
        click.echo(table(("IMAGE", "ID", "PLATFORM", "SIZE"), rows))
    else:
        click.echo("no images", err=True)


@image.command("rm")
@click.argument("names", metavar="NAME|ID...", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Remove images by name, or all names of one by its id. One that a container uses now is refused."""
    refusals = []
    for name in dict.fromkeys(names):
        try:
            click.echo(f"removed {_asked(operator.methodcaller('remove', name))}")
        except Problem as refused:
            refusals.append(str(refused))
    if refusals:
        raise Problem("\n".join([refusals[0], *(f"podwire: {text}" for text in refusals[1:])]))


@image.command("tag")
@click.argument("known", metavar="NAME|ID")
@click.argument("name", metavar="NEW-NAME")
def tag(known: str, name: str) -> None:
    """Give an image one more name."""
    click.echo(f"tagged {_asked(lambda store: store.tag(known, name))}")


def _asked(question: Callable[[Store], T]) -> T:
    import platform

    from podwire.images.documents import ARCHITECTURES, Platform
    from podwire.images.errors import ImageRefused
    from podwire.images.store import Store

    machine = platform.machine()
    store = Store(state.images(os.environ), machine=Platform(ARCHITECTURES.get(machine, machine), "linux"), progress=_progress)
    try:
        return question(store)
    except ImageRefused as refused:
        raise Problem(str(refused)) from None


def _progress(words: str) -> None:
    if sys.stderr.isatty():
        click.echo(words, err=True)


def _readable(size: float) -> str:
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.3g}{unit}"
