"""What a stage freed goes back to the system, whichever allocator its process has."""

import os
import subprocess
import sys

import pytest

from flows.process.allocator import preloaded

PROGRAM = """
import psutil, sys
from tasks.engine.memory import give_back

def resident():
    return psutil.Process().memory_info().rss // 2**20

kept = [bytearray(b"x" * 16_000) for _ in range(20_000)]  # 320 MB in pieces too small for a mapping of their own
last = kept.pop()  # nothing behind it is free, so that no allocator gives the rest back by itself
full = resident()
del kept
give_back()
print(full - resident())
"""


@pytest.mark.parametrize("library", sorted({"", preloaded() or ""}))
def test_memory_that_was_freed_returns_to_the_system(library: str) -> None:
    environment = os.environ | {"LD_PRELOAD": library}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 250, done.stderr
