"""The files that containers log to, and what is read of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podwire.linux.inotify import FolderWatches
from podwire.pods.logs.file import LogFile, path_of, remove_older, rotated
from podwire.pods.logs.lines import Splitter
from podwire.pods.logs.reader import Selection, follow, read

LIMIT_S = 20


def logged(path: Path, *lines: str, maximum_size: int = 10**7) -> LogFile:
    log = LogFile(path, maximum_size=maximum_size)
    for second, line in enumerate(lines):
        log.line(line, stream="stderr" if line.startswith("error") else "stdout", time_ns=second * 10**9)
    return log


async def shown(path: Path, **selection: object) -> str:
    return b"".join([piece async for piece in read(path, Selection(**selection))]).decode()  # type: ignore[arg-type]


async def test_what_is_wanted_is_shown(tmp_path: Path) -> None:
    path = path_of(tmp_path, "uid", "server", 0)
    logged(path, "one", "error two", "three").close()
    assert await shown(path) == "one\nerror two\nthree\n"
    assert await shown(path, tail=2) == "error two\nthree\n"
    assert await shown(path, tail=0) == ""
    assert await shown(path, tail=10) == "one\nerror two\nthree\n"
    assert await shown(path, since_ns=10**9) == "error two\nthree\n"
    assert await shown(path, limit=5) == "one\ne"
    assert await shown(path, stream="stderr") == "error two\n"
    assert await shown(path, tail=1, timestamps=True) == "1970-01-01T00:00:02.000000000Z three\n"
    with pytest.raises(FileNotFoundError):
        await shown(path_of(tmp_path, "uid", "server", 1))


async def test_a_long_line_is_one_line_and_an_unfinished_one_has_no_end(tmp_path: Path) -> None:
    path = path_of(tmp_path, "uid", "server", 0)
    log, splitter, long = LogFile(path), Splitter("stdout"), b"x" * 100_000
    log.write(splitter.feed(long + b"\nhalf", 0) + splitter.flush(0))
    log.close()
    assert await shown(path) == long.decode() + "\nhalf"
    assert (await shown(path, timestamps=True)).count("1970") == 2


async def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    path = path_of(tmp_path, "uid", "server", 3)
    lines = [f"line {number}" for number in range(100)]
    logged(path, *lines, maximum_size=500).close()
    assert len(rotated(path)) == 4
    assert all(file.stat().st_size <= 500 for file in [path, *rotated(path)])
    kept = (await shown(path)).splitlines()
    assert kept == lines[-len(kept) :]
    assert len(kept) > 40
    assert await shown(path, tail=25) == "".join(line + "\n" for line in lines[-25:])
    newest = path_of(tmp_path, "uid", "server", 5)
    logged(newest, "x").close()
    remove_older(newest)
    assert [file.name for file in newest.parent.iterdir()] == ["5.log"]


class Seen:
    """What was shown so far."""

    def __init__(self) -> None:
        self.text = b""
        self._more = asyncio.Event()

    async def collect(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            self.text += piece
            self._more.set()

    async def until(self, text: bytes) -> None:
        async with asyncio.timeout(LIMIT_S):
            while self.text != text:
                self._more.clear()
                await self._more.wait()


async def test_following_shows_what_comes_also_over_a_rotation_and_ends(tmp_path: Path) -> None:
    path, watches, ended, seen = path_of(tmp_path, "uid", "server", 0), FolderWatches(), asyncio.Event(), Seen()
    following = asyncio.create_task(seen.collect(follow(path, Selection(), watches, ended)))
    log = LogFile(path, maximum_size=400)
    expected = b""
    for number in range(200):
        log.line(f"line {number}")
        expected += b"line %d\n" % number
        if number % 7 == 0:
            await seen.until(expected)
    ended.set()
    async with asyncio.timeout(LIMIT_S):
        await following
    assert seen.text == expected
    log.close()
    watches.close()
