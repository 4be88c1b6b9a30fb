"""The ranking loss as mathematics: what must hold for any scores."""

import math

import pytest
import torch

from tasks.records.rankings import ordered_pairs, rank_pairs
from tasks.reward_model.loss import pairwise_losses, ranking_loss, summed_ranking_loss


@pytest.mark.parametrize("count", [2, 4, 7, 9])
@pytest.mark.point(21)
def test_equal_scores_cost_ln_2_for_every_k(count: int) -> None:
    loss = ranking_loss(torch.full((count,), 3.0), list(range(1, count + 1)), tie_normaliser="all_pairs")
    assert loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_only_differences_count() -> None:
    scores = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ranks = [3, 1, 2, 2, 5, 6]
    losses = [ranking_loss(scores + shift, ranks, tie_normaliser="all_pairs").item() for shift in (0.0, -40.0, 1000.0)]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-10)


def test_gradient_over_a_prompt_sums_to_zero() -> None:
    scores = torch.randn(9, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    ranking_loss(scores, [1, 2, 2, 4, 5, 5, 5, 8, 9], tie_normaliser="surviving_pairs").backward()
    assert scores.grad is not None
    assert abs(scores.grad.sum().item()) < 1e-12
    assert scores.grad.abs().max().item() > 1e-3


def test_order_of_completions_does_not_matter() -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=torch.float64)
    ranks = [2, 4, 1, 3]
    shuffled = [2, 0, 3, 1]
    again = ranking_loss(scores[shuffled], [ranks[index] for index in shuffled], tie_normaliser="all_pairs")
    assert again.item() == pytest.approx(ranking_loss(scores, ranks, tie_normaliser="all_pairs").item(), abs=1e-12)


def test_brute_force_over_pairs() -> None:
    scores, ranks = [0.4, -0.2, 1.3, 0.4, -2.0], [2, 3, 1, 3, 5]
    wanted = [math.log1p(math.exp(-(scores[i] - scores[j]))) for i in range(5) for j in range(5) if ranks[i] < ranks[j]]
    loss = ranking_loss(torch.tensor(scores, dtype=torch.float64), ranks, tie_normaliser="all_pairs")
    assert len(wanted) == 9
    assert loss.item() == pytest.approx(sum(wanted) / 10, abs=1e-12)


def test_all_tied_prompt_costs_nothing() -> None:
    for normaliser in ("all_pairs", "surviving_pairs"):
        scores = torch.zeros(3, requires_grad=True)
        loss = ranking_loss(scores, [1, 1, 1], tie_normaliser=normaliser)  # type: ignore[arg-type]
        loss.backward()
        assert loss.item() == 0.0
        assert scores.grad is not None and scores.grad.abs().sum().item() == 0.0


def test_far_apart_scores_stay_finite() -> None:
    scores = torch.tensor([-5000.0, 5000.0], requires_grad=True)
    loss = ranking_loss(scores, [1, 2], tie_normaliser="all_pairs")
    loss.backward()
    assert loss.item() == pytest.approx(10000.0)
    assert scores.grad is not None and scores.grad.tolist() == pytest.approx([-1.0, 1.0])


def test_several_prompts_add_up() -> None:
    first, second = torch.tensor([0.1, 0.9, -0.4]), torch.tensor([1.0, 2.0])
    together = summed_ranking_loss(torch.cat([first, second]), rank_pairs([[1, 2, 2], [2, 1]], "all_pairs"))
    apart = ranking_loss(first, [1, 2, 2], tie_normaliser="all_pairs") + ranking_loss(
        second, [2, 1], tie_normaliser="all_pairs"
    )
    assert together.item() == pytest.approx(apart.item(), abs=1e-6)


def test_two_completions_are_the_pairwise_loss() -> None:
    scores = torch.tensor([0.2, 1.1], dtype=torch.float64)
    wanted = pairwise_losses(scores[1:], scores[:1]).mean()
    assert ranking_loss(scores, [2, 1], tie_normaliser="all_pairs").item() == pytest.approx(wanted.item(), abs=1e-12)


def test_ordered_pairs_put_the_better_first() -> None:
    assert ordered_pairs([2, 1, 2]) == [(1, 0), (1, 2)]
