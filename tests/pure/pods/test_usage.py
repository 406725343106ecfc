"""What containers use: whose processes count, what is shared, how a rate comes of two readings."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from podwire.pods.kubelet.usage import NODE, Meter, Reading, Used, processes, rates, read

_TICKS = os.sysconf("SC_CLK_TCK")


def process(proc: Path, pid: int, parent: int, ticks: int, pss_kib: int | None, name: str = "sh") -> None:
    folder = proc / str(pid)
    folder.mkdir()
    words = ["S", str(parent), *["0"] * 9, str(ticks), "0", "0", "0", *["0"] * 6, "10", "0"]
    (folder / "stat").write_text(f"{pid} ({name}) {' '.join(words)}\n")
    if pss_kib is not None:
        (folder / "smaps_rollup").write_text(f"0-1 ---p 00000000 00:00 0 [rollup]\nRss: 9999 kB\nPss: {pss_kib} kB\n")


def test_a_container_is_its_first_process_and_all_below_it(tmp_path: Path) -> None:
    process(tmp_path, 1, 0, 5, 10)
    process(tmp_path, 20, 1, 100, 100, name="a) b (c")
    process(tmp_path, 21, 20, 200, 50)
    process(tmp_path, 22, 21, 300, 25)
    process(tmp_path, 30, 1, 400, 80)
    (tmp_path / "31").mkdir()  # one that has just ended
    used = read({"u/a": 20, "u/b": 30, "v/c": 30, "w/gone": 99}, str(tmp_path))
    assert used["u/a"] == Used(600 / _TICKS, 175 * 1024)
    assert used["u/b"] == used["v/c"] == Used(200 / _TICKS, 40 * 1024)
    assert used[NODE] == Used(1005 / _TICKS, 265 * 1024)
    assert "w/gone" not in used


def test_what_is_resident_counts_where_shares_are_not_told(tmp_path: Path) -> None:
    process(tmp_path, 7, 0, 1, None)
    assert read({"a": 7}, str(tmp_path))["a"].memory == 10 * os.sysconf("SC_PAGE_SIZE")


def test_this_process_is_read_from_the_real_one() -> None:
    assert processes()[os.getpid()].parent == os.getppid()


def test_rates() -> None:
    before = Reading(10.0, {"old": Used(5.0, 1), "again": Used(9.0, 1)})
    after = Reading(14.0, {"old": Used(7.0, 2), "again": Used(1.0, 3), "new": Used(1.5, 4)})
    measured = rates(before, after, {"old": 100.0, "again": 2.0, "new": 3.0})
    assert measured.window_s == 4.0
    assert {name: (one.cores, one.memory) for name, one in measured.usage.items()} == {"old": (0.5, 2), "again": (0.5, 3), "new": (0.5, 4)}


async def test_a_meter_takes_two_readings_and_keeps_the_last() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    skipped = 0.0
    taken: list[float] = []

    def clock() -> float:
        return loop.time() - began + skipped

    def take(_roots: Mapping[str, int]) -> dict[str, Used]:
        taken.append(clock())
        return {"c": Used(clock() / 2, 1)}

    meter = Meter(take, clock)
    first, second = await asyncio.gather(meter.measure({"c": 1}, {}), meter.measure({"c": 1}, {}))
    assert first == second
    assert len(taken) == 2
    assert first.window_s > 0.9
    assert 0.3 < first.usage["c"].cores < 0.7
    skipped = 30.0
    assert (await meter.measure({"c": 1}, {})).window_s > 29.0
    assert len(taken) == 3
    skipped = 1000.0
    assert (await meter.measure({"c": 1}, {})).window_s < 60.0


async def test_a_timer_that_is_early_leaves_no_reading_out() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    meter = Meter(lambda _: {"c": Used(1.0, 1)}, lambda: (loop.time() - began) * 0.9)
    assert (await meter.measure({"c": 1}, {})).window_s > 0.5
