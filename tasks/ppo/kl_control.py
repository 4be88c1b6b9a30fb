"""The controller that steers beta towards a wanted KL; InstructGPT keeps beta fixed instead."""

LARGEST_ERROR = 0.2
"""So one iteration multiplies beta by at least 1 - 0.2 * episodes / horizon, which must be above 0 (see ``PPOConfig``)."""


def adapted_beta(
    beta: float,  # points per nat
    kl: float,  # nats per response, mean of the iteration
    *,
    target: float,  # nats per response
    horizon: float,  # episodes
    episodes: int,  # episodes of the iteration
) -> float:
    """Raise beta when the policy has gone further than ``target``, lower it when it has not; at most 20 % error counts.

    Source: lm-human-preferences, 2019 (Ziegler et al., arXiv:1909.08593, section 2.2).
    """
    error = min(max(kl / target - 1.0, -LARGEST_ERROR), LARGEST_ERROR)
    return beta * (1.0 + error * episodes / horizon)
