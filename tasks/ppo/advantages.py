"""How much better than expected each token turned out: generalised advantage estimation."""

from typing import NamedTuple

import torch
from torch import Tensor


class Advantages(NamedTuple):
    """Estimates before whitening."""

    advantages: Tensor  # (B, W) 0 where value_mask is False
    returns: Tensor  # (B, W) what the value model should have said; 0 where value_mask is False


def generalised_advantages(
    rewards: Tensor,  # (B, W)
    values: Tensor,  # (B, W) of the state before each token, at sampling time
    value_mask: Tensor,  # (B, W) True on a run of columns from 0
    *,
    discount: float,
    gae_lambda: float,
) -> Advantages:
    """Sum of discounted TD errors, backwards from each row's last column; the value beyond that column is 0.

    delta_t = r_t + discount * V_{t+1} - V_t and A_t = delta_t + discount * gae_lambda * A_{t+1}; returns are A + V.
    What masked columns hold changes nothing. Units: those of the rewards.

    Source: Schulman et al. (arXiv:1506.02438) eq. 16; discount 1 and lambda 0.95 from the 2019 code (spec D.6).
    """
    rewards = torch.where(value_mask, rewards, torch.zeros_like(rewards))
    values = torch.where(value_mask, values, torch.zeros_like(values))
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    errors = rewards + discount * next_values - values
    running = torch.zeros_like(errors[:, 0])
    columns = []
    for column in reversed(errors.unbind(dim=1)):
        running = column + discount * gae_lambda * running
        columns.append(running)
    advantages = torch.stack(columns[::-1], dim=1)
    return Advantages(advantages, advantages + values)
