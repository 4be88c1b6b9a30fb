"""The adaptive controller's directions and limits (its numbers are in tests/golden)."""

import pytest

from tasks.ppo.kl_control import adapted_beta


@pytest.mark.parametrize(("kl", "error"), [(6.0, 0.0), (600.0, 0.2), (0.0, -0.2), (6.6, 0.1)])
def test_error_is_limited_to_a_fifth(kl: float, error: float) -> None:
    beta = adapted_beta(0.1, kl, target=6.0, horizon=1000.0, episodes=100)
    assert beta == pytest.approx(0.1 * (1 + error * 0.1))
