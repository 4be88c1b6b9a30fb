"""Several scores of a response as one. B responses; units are those of the parts, times their weights."""

from collections.abc import Sequence

import torch
from torch import Tensor


def weighted_sum(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:  # K of (B,) -> (B,)
    """The sum of weighted scores."""
    total = weights[0] * scores[0]
    for score, weight in zip(scores[1:], weights[1:], strict=True):
        total = total + weight * score
    return total


def weighted_minimum(scores: Sequence[Tensor], weights: Sequence[float]) -> Tensor:  # K of (B,) -> (B,)
    """The lowest weighted score: no part can be bought with another."""
    return torch.stack([weight * score for score, weight in zip(scores, weights, strict=True)]).amin(dim=0)


def gated(guard: Tensor, below: float, guarded: Tensor, others: Tensor) -> Tensor:  # (B,)
    """``guarded`` where ``guard`` is below the threshold, else ``others``.

    Source: Llama 2 (arXiv:2307.09288) section 3.2.3, where the safety reward model replaces the helpfulness one below 0.15.
    """
    return torch.where(guard < below, guarded, others)


def spread(members: Tensor) -> Tensor:  # (M, B) -> (B,)
    """Standard deviation over the members of an ensemble, divided by M."""
    return members.std(dim=0, correction=0)


def cautious_mean(members: Tensor, penalty: float) -> Tensor:  # (M, B) -> (B,)
    """Mean over an ensemble's members less ``penalty`` standard deviations: what they disagree about is worth less.

    Source: Coste et al. 2023 (arXiv:2310.02743), uncertainty-weighted optimisation, with the deviation for their variance.
    """
    return members.mean(dim=0) - penalty * spread(members) if len(members) > 1 else members[0]
