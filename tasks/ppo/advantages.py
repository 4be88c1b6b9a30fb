"""How much better than expected a token, or a whole response, turned out."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

GROUP_EPSILON = 1e-4
"""Keeps the quotient finite when all responses to a prompt earn the same."""


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

    Source: Schulman et al. (arXiv:1506.02438) eq. 16; discount 1 and lambda 0.95 from the 2019 code (docs/method.md D.6).
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


def leave_one_out_advantages(totals: Tensor) -> Tensor:
    """What each of k responses to a prompt earned beyond the mean of the other k - 1.

    ``totals`` is (G, k) with k > 1, the summed rewards of the responses to G prompts; so is the result, in the same
    units. A response's own reward is not in its baseline, so the policy gradient stays unbiased.

    Source: RLOO (Ahmadian et al., arXiv:2402.14740, section 3).
    """
    others = totals.shape[1] - 1
    return totals - (totals.sum(dim=1, keepdim=True) - totals) / others


def group_normalised_advantages(totals: Tensor) -> Tensor:
    """What each of k responses to a prompt earned beyond their mean, in their standard deviations.

    (G, k) with k > 1 -> (G, k), without unit. The deviation divides by k - 1; equal responses earn exactly 0.

    Source: GRPO (Shao et al., arXiv:2402.03300, section 4.1); the epsilon and k - 1 are TRL's.
    """
    spread = totals.std(dim=1, keepdim=True, correction=1)
    return (totals - totals.mean(dim=1, keepdim=True)) / (spread + GROUP_EPSILON)


GROUP_ESTIMATORS: dict[Literal["leave_one_out", "group_normalised"], Callable[[Tensor], Tensor]] = {
    "leave_one_out": leave_one_out_advantages,
    "group_normalised": group_normalised_advantages,
}
