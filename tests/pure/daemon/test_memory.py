"""What the allocator keeps: a stream's pieces are not paid for with page faults again and again."""

from __future__ import annotations

import subprocess
import sys

ROUNDS = 200
PROGRAM = f"""
import resource, sys
from podwire.daemon import memory
if sys.argv[1:]:
    memory.keep_freed()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({ROUNDS}):
        pieces = [b"x" * 300_000 for _ in range(4)]
        del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


def faults(*words: str) -> int:
    return int(subprocess.run([sys.executable, "-c", PROGRAM, *words], check=True, capture_output=True, text=True).stdout)


def test_freed_memory_is_not_asked_for_again() -> None:
    assert faults("keep") < ROUNDS
    assert faults() > 100 * ROUNDS
