"""The whole pipeline with two processes for each stage that can be divided."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_runners import environment, finish

ZERO = "reward/demonstration_mean"


def figures(home: Path, stage: str) -> dict[str, float]:
    """Of the first artifact of a stage, without what it cost, and without the zero of a reward: the loss does not see it, so
    that its gradient is rounding alone, of which Adam makes steps; it is subtracted."""
    (manifest,) = home.glob(f"artifacts/{stage}/*/manifest.json")
    found: dict[str, float] = json.loads(manifest.read_text(encoding="utf-8"))["metrics"]
    return {name: value for name, value in found.items() if not name.startswith("cost/") and name != ZERO}


@pytest.mark.slow
def test_two_processes_make_what_one_finds(tmp_path: Path) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    finish(two, "runtime.processes=2")
    explained = subprocess.run(
        [sys.executable, "-m", "flows.rlhf", "scale=miniature", "--explain"],
        env=environment(two),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "0 of 15 stages will run" in explained.stdout
    finish(one)
    for stage in ("pretrain", "sft", "ppo_init", "reward_model", "ppo_ptx"):
        assert figures(two, stage) == pytest.approx(figures(one, stage), rel=1e-4, abs=1e-5)
