"""What a stage took is measured from its beginning, not from the process's."""

import mmap
from pathlib import Path

import pytest

from tasks.engine import cost
from tasks.engine.cost import Meter

HUNDRED_MIB = 100 * 2**20


def fill_and_return() -> None:
    """Memory of the system's, not of an allocator: that may keep what is freed, where its heap has a hole so large."""
    with mmap.mmap(-1, HUNDRED_MIB) as pages:
        for _ in range(100):
            pages.write(b"x" * 2**20)


def test_the_peak_of_an_earlier_stage_is_forgotten_and_this_ones_is_kept() -> None:
    before = Meter("cpu").read()["cost/peak_mib"]
    fill_and_return()
    meter = Meter("cpu")
    idle = meter.read()["cost/peak_mib"]
    fill_and_return()
    busy = meter.read()
    assert idle - before < 50 and busy["cost/peak_mib"] - idle > 80
    assert 0.0 < busy["cost/seconds"] < 60.0


def test_memory_that_the_kernel_does_not_tell_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cost, "OWN", tmp_path / "nowhere")
    assert set(Meter("cpu").read()) == {"cost/seconds"}
