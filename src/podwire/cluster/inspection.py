"""What the kernel holds at one place: links, addresses, routes, rules, neighbours, the ruleset; as text.

Started by the lab inside the place (``python -m podwire.cluster.inspection FOLDER``), since a namespace can only be seen from within.
What must not be here: anything that changes something.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from podwire.linux.errors import KernelRefused
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.nft import text


def network() -> str:
    """Give links, addresses, routes, rules and neighbours, each as the ``ip`` command that would make it."""
    with Network() as door:
        parts: dict[str, Iterable[object]] = {
            "links": [*door.links().values()],
            "addresses": door.addresses(),
            "routes": door.routes(),
            "rules": door.rules(),
            "neighbours": door.neighbours(),
        }
    return "\n".join(f"# {name}\n" + "".join(f"{value}\n" for value in values) for name, values in parts.items())


def ruleset() -> str:
    """Give the nftables ruleset as ``nft list ruleset`` prints it."""
    with Nftables() as door:
        return text.render(door.dump())


def main(folder: str) -> None:
    """Write ``network.txt`` and ``ruleset.nft`` into a folder that exists; what cannot be read is said in its file."""
    for name, look in (("network.txt", network), ("ruleset.nft", ruleset)):
        try:
            content = look()
        except (KernelRefused, ValueError) as error:
            content = f"# cannot be read: {error}\n"
        Path(folder, name).write_text(content)


if __name__ == "__main__":
    main(sys.argv[1])
