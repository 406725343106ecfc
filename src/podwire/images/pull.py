"""An image from a registry into the store, by skopeo: it knows registries, their credentials and their mirrors.

What comes is checked and unpacked as any archive is. A registry on this machine's loopback may speak plain HTTP, as for other runtimes.

Source: https://github.com/containers/skopeo/blob/main/docs/skopeo-copy.1.md
"""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from typing import Final

from podwire.images import reference
from podwire.images.errors import ImageRefused
from podwire.images.reference import Reference
from podwire.images.store import Store

PROGRAM: Final = "skopeo"
LIMIT_S: Final = 900.0
_PASSED: Final = ("PATH", "HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def pull(store: Store, name: str, *, plain_http: bool = False) -> list[str]:
    """Take an image from the registry that its name says; gives its full name. ``plain_http``: over HTTP, or HTTPS that proves nothing.

    Raises ImageRefused.
    """
    wanted = reference.parse(name)
    program = shutil.which(PROGRAM)
    if program is None:
        raise ImageRefused(f"pull {wanted}: {PROGRAM} is not installed (Debian: apt-get install {PROGRAM})")
    source = replace(wanted, tag="") if wanted.digest else wanted
    secure = "false" if plain_http or _on_loopback(wanted) else "true"
    with tempfile.TemporaryDirectory(prefix="podwire-pull-") as folder:
        place = f"{folder}/image"
        command = [program, "--insecure-policy", "--override-os", "linux", "copy", "--quiet", f"--src-tls-verify={secure}"]
        _run([*command, f"docker://{source}", f"oci:{place}:pulled"], folder, wanted)
        return store.load(place, str(wanted))


def _run(command: list[str], folder: str, wanted: Reference) -> None:
    environment = {"TMPDIR": folder, **{key: os.environ[key] for key in _PASSED if key in os.environ}}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ImageRefused(f"pull {wanted}: {PROGRAM} has not ended after {LIMIT_S:g} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"{PROGRAM} ended with {done.returncode}"]
        raise ImageRefused(f"pull {wanted}: {_message(said[-1])}")


def _message(line: str) -> str:
    """What a line of the program's log says, without its time and level."""
    _, found, rest = line.partition('msg="')
    return rest.rstrip('"').replace('\\"', '"') if found else line


def _on_loopback(wanted: Reference) -> bool:
    host = wanted.domain.rpartition(":")[0] or wanted.domain
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
