"""Channels whose output is a container's, and so is in its log: those of who attaches to the command that a stand-in plays.

Source: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podwire.pods.kubelet.channels import Channels
from podwire.pods.logs.file import LogFile, remove_older
from podwire.pods.logs.lines import Splitter


class Recorded(Channels):
    """``inner``, with each thing that is sent written to the log at ``path`` as well. ``close`` when nothing more comes."""

    def __init__(self, inner: Channels, path: Path) -> None:
        super().__init__()
        self.stdin, self.gone, self._inner = inner.stdin, inner.gone, inner
        self._log = LogFile(path)
        self._splitters = {"stdout": Splitter("stdout"), "stderr": Splitter("stderr")}
        with contextlib.suppress(OSError):  # a log that cannot be written keeps nobody from his shell
            self._log.open()
            remove_older(path)

    def follow_size(self, follower: Callable[[int, int], None] | None) -> None:
        self._inner.follow_size(follower)

    async def run(self) -> None:
        await self._inner.run()

    async def send(self, channel: str, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._log.write(self._splitters[channel].feed(data, time.time_ns()))
        await self._inner.send(channel, data)

    async def finish(self, outcome: dict[str, Any]) -> None:
        await self._inner.finish(outcome)

    def close(self) -> None:
        """Write what is left of lines that were not ended."""
        with contextlib.suppress(OSError):
            for splitter in self._splitters.values():
                self._log.write(splitter.flush(time.time_ns()))
        self._log.close()
