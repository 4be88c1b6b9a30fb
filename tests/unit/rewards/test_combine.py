"""Rules of combination, by numbers computed by hand."""

import pytest
import torch

from tasks.rewards.combine import cautious_mean, gated, spread, weighted_minimum, weighted_sum

HELPFUL, SAFE = torch.tensor([1.0, 2.0, -1.0]), torch.tensor([0.5, -3.0, 0.1])


def test_weights() -> None:
    assert weighted_sum([HELPFUL, SAFE], [1.0, 2.0]).tolist() == pytest.approx([2.0, -4.0, -0.8])


def test_one_part_of_weight_one_is_itself_bit_for_bit() -> None:
    scores = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(weighted_sum([scores], [1.0]), scores)
    assert torch.equal(cautious_mean(scores[None], 3.0), scores)


def test_minimum() -> None:
    assert weighted_minimum([HELPFUL, SAFE], [1.0, 2.0]).tolist() == pytest.approx([1.0, -6.0, -1.0])


def test_gate_below_the_threshold_only_the_guard_counts() -> None:
    assert gated(SAFE, 0.15, SAFE, HELPFUL).tolist() == pytest.approx([1.0, -3.0, 0.1])
    assert gated(torch.tensor([0.15]), 0.15, torch.tensor([9.0]), torch.tensor([1.0])).item() == 1.0  # at it, not below


def test_an_ensemble_pays_for_its_disagreement() -> None:
    members = torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    assert spread(members).tolist() == [1.0, 0.0]
    assert cautious_mean(members, 0.5).tolist() == [1.5, 4.0]
    assert cautious_mean(members, 0.0).tolist() == [2.0, 4.0]
