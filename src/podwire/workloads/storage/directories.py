"""The directories of volumes, on the disk of the machine: made for its owner alone, removed with all that is in them.

Where one lies follows from the name of its PersistentVolume. Nothing else that a manifest says has a say in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from podwire.objects.storage import directory_of


def make(state: str, volume: str) -> None:
    """Raises OSError, ValueError."""
    path = directory_of(state, volume)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode=0o700)
    if os.path.islink(path):
        raise ValueError(f"{path} is a symbolic link")


def remove(state: str, volume: str) -> None:
    """Remove a directory; one that is gone is no error. Raises OSError, ValueError."""
    path = directory_of(state, volume)
    if os.path.islink(path):
        os.unlink(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
