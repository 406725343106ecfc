"""An image from a registry into the store, by skopeo: it knows registries, their credentials and their mirrors.

What comes is checked and unpacked as any archive is. A registry on this machine's loopback may speak plain HTTP, as for other runtimes.
Credentials that are given are handed to skopeo in memory: they are on no disk and in no command line.

Source: https://github.com/containers/skopeo/blob/main/docs/skopeo-copy.1.md
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from podwire.images import reference
from podwire.images.errors import ImageRefused
from podwire.images.store import Store

PROGRAM: Final = "skopeo"
LIMIT_S: Final = 900.0
_PASSED: Final = ("PATH", "HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE")


def pull(
    store: Store,
    name: str,
    *,
    plain_http: bool = False,
    credentials: Sequence[bytes] = (),
    started: Callable[[subprocess.Popen[str]], None] = lambda _process: None,
) -> list[str]:
    """Take an image from the registry that its name says; gives its full name. ``plain_http``: over HTTP, or HTTPS that proves nothing.

    ``credentials`` (``credentials.documents``) are tried one after the other; without any, skopeo has its own. ``started`` hears of each
    process that asks. Raises ImageRefused.
    """
    wanted = reference.parse(name)
    program = shutil.which(PROGRAM)
    if program is None:
        raise ImageRefused(f"pull {wanted}: {PROGRAM} is not installed (Debian: apt-get install {PROGRAM})")
    source = replace(wanted, tag="") if wanted.digest else wanted
    secure = "false" if plain_http or reference.on_loopback(wanted.domain) else "true"
    with store.room() as (folder, held):
        place = f"{folder}/image"
        command = [program, "--insecure-policy", "--override-os", "linux", "copy", "--quiet", f"--src-tls-verify={secure}"]
        command.append("--remove-signatures")  # nobody looks at them here, and the machine's own may be closed to this user
        said: list[str] = []
        for one in credentials or (b"",):
            with open(os.memfd_create("credentials", os.MFD_CLOEXEC), "wb", buffering=0) as memory:
                memory.write(one)
                given = ["--src-authfile", f"/proc/self/fd/{memory.fileno()}"] if one else []
                words = [*command, *given, f"docker://{source}", f"oci:{place}:pulled"]
                failure = _run(words, folder, (held, memory.fileno()), started)
            if not failure:
                return store.load(place, str(wanted), one)
            said += [failure] if failure not in said else []
        raise ImageRefused(f"pull {wanted}: {', '.join(said)}")


def _run(command: list[str], folder: str, passed: Sequence[int], started: Callable[[subprocess.Popen[str]], None]) -> str:
    """Run skopeo to its end; gives what is wrong, or nothing."""
    environment = {"TMPDIR": folder, **{key: os.environ[key] for key in _PASSED if key in os.environ}}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=passed,
    ) as process:
        started(process)
        try:
            _, errors = process.communicate(timeout=LIMIT_S)
        except BaseException as failure:
            process.kill()
            if isinstance(failure, subprocess.TimeoutExpired):
                return f"{PROGRAM} has not ended after {LIMIT_S:g} s"
            raise
    lines = errors.strip().splitlines() or [f"{PROGRAM} ended with {process.returncode}"]
    return _message(lines[-1]) if process.returncode else ""


def _message(line: str) -> str:
    """What a line of the program's log says, without its time and level."""
    _, found, rest = line.partition('msg="')
    return rest.rstrip('"').replace('\\"', '"') if found else line
