"""Rules of the older iptables (iptables-legacy), which the variant that writes nf_tables neither shows nor touches.

What belongs here: to say whether there are chains of a service proxy among them. What must not: changing them: a proxy that writes them
removes them, too.

The kernel has the tables that were made in a network namespace in /proc/net/ip_tables_names. Only if there are any a program is asked for
what is in them: asking makes a table that is not there yet.

Source: iptables-save(8) of the variant nft: "iptables-legacy tables present, use iptables-legacy-save to see them".
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from functools import partial
from pathlib import Path

from podwire.linux import namespaces
from podwire.services.iptables.rules import is_ours
from podwire.services.iptables.tables import LIMIT_S, SEARCHED, ours
from podwire.services.layout import IPV4, IPV6, Family

_FAMILIES = ((IPV4, "iptables", "ip_tables_names"), (IPV6, "ip6tables", "ip6_tables_names"))


def told(namespace: int | None = None, path: str = SEARCHED) -> list[str]:
    """Say in sentences which chains of a service proxy there are. ``path`` are the folders in which programs are looked for."""
    look = partial(_told, path)
    return look() if namespace is None else namespaces.inside(namespace, look)


def _told(path: str) -> list[str]:
    return [words for family, kind, names in _FAMILIES for words in _of(family, kind, names, path)]


def _of(family: Family, kind: str, names: str, path: str) -> list[str]:
    """Look at one family's."""
    there: list[str] = []
    with contextlib.suppress(OSError):  # a kernel without it, or one that shows it to the machine's own root alone
        there = sorted(Path("/proc/thread-self/net", names).read_text(encoding="ascii").split())
    if not there:
        return []
    words = f"{kind}-legacy has tables ({', '.join(there)}), and what another proxy may have left in them acts, too"
    program = shutil.which(f"{kind}-legacy-save", path=path)
    if program is None:
        return [f"{words}: {kind}-legacy-save, which would show it, is not installed"]
    try:
        done = subprocess.run([program], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return [f"{words}: {error}"]
    found = sorted({table for table, name in ours(done.stdout) if is_ours((table, name))})
    where = " and ".join(f"table {family.name} {table}" for table in found)
    return [f"chains of another proxy in {where} of {kind}-legacy act, too; `kube-proxy --cleanup` removes them"] if found else []
