"""The ranking loss of InstructGPT (eq. 1), for prompts with K ranked completions and for single pairs."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TieNormaliser = Literal["all_pairs", "surviving_pairs"]


class RankedPairs(NamedTuple):
    """Every ordered pair of a batch of ranked prompts; indices point into the concatenated completions."""

    winners: Tensor  # (M,) int64
    losers: Tensor  # (M,) int64
    weights: Tensor  # (M,) fp64, 1/Z of the pair's prompt


def ordered_pairs(ranks: Sequence[int]) -> list[tuple[int, int]]:
    """(winner, loser) for every pair that the ranking orders; tied pairs are left out (InstructGPT C.2)."""
    count = len(ranks)
    pairs = []
    for first in range(count):
        for second in range(first + 1, count):
            if ranks[first] < ranks[second]:
                pairs.append((first, second))
            elif ranks[second] < ranks[first]:
                pairs.append((second, first))
    return pairs


def rank_pairs(rankings: Sequence[Sequence[int]], tie_normaliser: TieNormaliser) -> RankedPairs:
    """Collect the pairs of several prompts whose completions lie one after another.

    Args:
        rankings: ranks of each prompt's completions; 1 is best, equal ranks are ties.
        tie_normaliser: ``all_pairs`` divides by K(K-1)/2, so a ranking with ties weighs less, as the formula is
            printed; ``surviving_pairs`` divides by the pairs that are left.
    """
    winners: list[int] = []
    losers: list[int] = []
    weights: list[float] = []
    start = 0
    for ranks in rankings:
        pairs = ordered_pairs(ranks)
        normaliser = len(ranks) * (len(ranks) - 1) // 2 if tie_normaliser == "all_pairs" else len(pairs)
        for winner, loser in pairs:
            winners.append(start + winner)
            losers.append(start + loser)
            weights.append(1.0 / normaliser)
        start += len(ranks)
    return RankedPairs(
        torch.tensor(winners, dtype=torch.long),
        torch.tensor(losers, dtype=torch.long),
        torch.tensor(weights, dtype=torch.float64),
    )


def summed_ranking_loss(
    scores: Tensor,  # (N,) scores of all completions of several prompts, one after another
    pairs: RankedPairs,
) -> Tensor:  # ()
    """Sum over prompts of the mean over pairs of -log sigmoid(r_winner - r_loser).

    Divide by the number of prompts in the optimizer batch for eq. 1. Every prompt has the same weight whatever its
    K. The loss sees only differences, so the gradient over a prompt's scores sums to zero.

    Source: InstructGPT (arXiv:2203.02155) eq. 1.
    """
    losses = pairwise_losses(scores.index_select(0, pairs.winners), scores.index_select(0, pairs.losers))  # (M,)
    return (losses * pairs.weights.to(losses.dtype)).sum()


def ranking_loss(
    scores: Tensor,  # (K,)
    ranks: Sequence[int],
    *,
    tie_normaliser: TieNormaliser,
) -> Tensor:  # ()
    """Eq. 1 for one prompt: the mean over its ordered pairs of -log sigmoid(r_winner - r_loser)."""
    return summed_ranking_loss(scores, rank_pairs([ranks], tie_normaliser))


def pairwise_losses(
    chosen: Tensor,  # (M,)
    rejected: Tensor,  # (M,)
    margin: Tensor | float = 0.0,  # (M,) how far apart the pair should be, in score points
) -> Tensor:  # (M,)
    """-log sigmoid(r_chosen - r_rejected - margin), one value per pair.

    Source: eq. 1 with K = 2; the margin is Llama 2's (arXiv:2307.09288, section 3.2.2) and 0 in InstructGPT.
    """
    return functional.softplus(-(chosen - rejected - margin))
