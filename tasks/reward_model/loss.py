"""The ranking loss of InstructGPT (eq. 1), for prompts with K ranked completions and for single pairs."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from tasks.records.choices import Margin
from tasks.records.rankings import RankedPairs, TieNormaliser, margins, rank_pairs


def summed_ranking_loss(
    scores: Tensor,  # (N,) scores of all completions of several prompts, one after another
    pairs: RankedPairs,
    margin: Margin = "none",
) -> Tensor:  # ()
    """Sum over prompts of the mean over pairs of -log sigmoid(r_winner - r_loser - m), m from ``margins``.

    Divide by the number of prompts in the optimizer batch for eq. 1. Every prompt has the same weight whatever its
    K. The loss sees only differences, so the gradient over a prompt's scores sums to zero.

    Source: InstructGPT (arXiv:2203.02155) eq. 1.
    """
    apart = 0.0 if margin == "none" else margins(pairs.distances, margin).to(scores.dtype)
    losses = pairwise_losses(scores.index_select(0, pairs.winners), scores.index_select(0, pairs.losers), apart)  # (M,)
    return (losses * pairs.weights.to(losses.dtype)).sum()


def ranking_loss(
    scores: Tensor,  # (K,)
    ranks: Sequence[int],
    *,
    tie_normaliser: TieNormaliser,
    margin: Margin = "none",
) -> Tensor:  # ()
    """Eq. 1 for one prompt: the mean over its ordered pairs of -log sigmoid(r_winner - r_loser - m)."""
    return summed_ranking_loss(scores, rank_pairs([ranks], tie_normaliser), margin)


def pairwise_losses(
    chosen: Tensor,  # (M,)
    rejected: Tensor,  # (M,)
    margin: Tensor | float = 0.0,  # (M,) how far apart the pair should be, in score points
) -> Tensor:  # (M,)
    """-log sigmoid(r_chosen - r_rejected - margin), one value per pair.

    Source: eq. 1 with K = 2; the margin is Llama 2's (arXiv:2307.09288, section 3.2.2) and 0 in InstructGPT.
    """
    return functional.softplus(-(chosen - rejected - margin))
