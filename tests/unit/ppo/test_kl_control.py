"""The adaptive controller's directions and limits (its numbers are in tests/golden)."""

import random

import pytest
from pydantic import ValidationError

from tasks.ppo.kl_control import adapted_beta
from tests.unit.ppo import tiny


@pytest.mark.parametrize(("kl", "error"), [(6.0, 0.0), (600.0, 0.2), (0.0, -0.2), (6.6, 0.1)])
def test_error_is_limited_to_a_fifth(kl: float, error: float) -> None:
    beta = adapted_beta(0.1, kl, target=6.0, horizon=1000.0, episodes=100)
    assert beta == pytest.approx(0.1 * (1 + error * 0.1))


def test_beta_stays_above_zero_for_every_accepted_horizon() -> None:
    """Whatever is measured: the worst case for the sign is a policy that never leaves its reference."""
    draws, accepted, refused = random.Random(3), 0, 0
    for _ in range(100):
        episodes, horizon = draws.choice([8, 16, 64, 512]), 10 ** draws.uniform(-1, 4)
        changes = {"episodes_per_iteration": episodes, "episodes": episodes, "minibatch_size": 8, "kl_horizon": horizon}
        try:
            config = tiny.config(kl_controller="adaptive", **changes)
        except ValidationError:
            refused += 1
            assert 0.1 * (1.0 - 0.2 * episodes / horizon) <= 0.0
            continue
        accepted += 1
        for kl in (-50.0, 0.0, 3.0, 1e6):
            beta = adapted_beta(0.1, kl, target=config.kl_target, horizon=config.kl_horizon, episodes=episodes)
            assert beta > 0.0
    assert accepted > 20 and refused > 20
