"""The fast path learns what the plain path learns: the same runs with packed rows, with padded rows, and in bf16."""

import statistics

import pytest
import torch

from tasks.language import families, replaying
from tests.unit.ppo import tiny

ITERATIONS = 20


def final_score(seed: int, **runtime: object) -> float:
    """Mean score of the last five iterations of a small PPO run."""
    changes = {
        "episodes": 64 * ITERATIONS,
        "episodes_per_iteration": 64,
        "minibatch_size": 32,
        "gamma": 0.0,
        "seed": seed,
    }
    learner = tiny.learner(runtime_changes=runtime, **changes)
    scores = [learner.step()["objective/score"] for _ in range(ITERATIONS)]
    assert statistics.mean(scores[-5:]) > statistics.mean(scores[:3]), "this run learns nothing, so it can show nothing"
    return statistics.mean(scores[-5:])


@pytest.mark.slow
def test_packed_padded_and_bf16_reach_the_same_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences between paths stay within what another seed changes."""
    torch.set_num_threads(1)
    fast = [final_score(seed) for seed in (1, 2, 3)]
    half = [final_score(seed, precision="bf16") for seed in (1, 2, 3)]
    for module in (families, replaying):
        monkeypatch.setattr(module, "packs", lambda _trunk: False)
    plain = [final_score(seed) for seed in (1, 2, 3)]
    noise = statistics.stdev(plain)
    assert abs(statistics.mean(fast) - statistics.mean(plain)) <= noise
    assert abs(statistics.mean(half) - statistics.mean(plain)) <= 2 * noise
