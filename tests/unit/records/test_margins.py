"""Llama 2's margin: pairs that lie further apart in a ranking should be further apart in score."""

import math

import pytest
import torch

from tasks.dpo.config import DPOConfig
from tasks.dpo.loss import preference_losses
from tasks.dpo.train import DPOLearner
from tasks.records.rankings import RankedSequences, margins, rank_pairs
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.loss import ranking_loss
from tasks.reward_model.train import RewardLearner, split_into_pairs
from tests.unit import tiny_models as tiny
from tests.unit.dpo.test_train import SMALL, comparisons
from tests.unit.reward_model.test_train import scalar_model


def test_the_margin_is_llama_2s_small_one_by_places() -> None:
    places = torch.tensor([1, 2, 3, 4, 8])
    assert margins(places, "rank").tolist() == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0, 1.0])
    assert margins(places, "none").tolist() == [0.0] * 5


def test_places_are_counted_between_the_two_of_each_pair() -> None:
    pairs = rank_pairs([[1, 3, 2, 4], [2, 1, 1]], "all_pairs")
    found = zip(pairs.winners.tolist(), pairs.losers.tolist(), pairs.distances.tolist(), strict=True)
    assert set(found) == {(0, 1, 2), (0, 2, 1), (0, 3, 3), (2, 1, 1), (1, 3, 1), (2, 3, 2), (5, 4, 1), (6, 4, 1)}


def test_eq_1_with_margins_by_hand() -> None:
    # ranks 1, 2, 3; scores 1.0, 0.5, 0.25: gaps 0.5, 0.75 and 0.25, of which the outer pair has one place between
    by_hand = sum(math.log1p(math.exp(-gap)) for gap in (0.5, 0.75 - 1 / 3, 0.25)) / 3
    scores = torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64)
    assert ranking_loss(scores, [1, 2, 3], tie_normaliser="all_pairs", margin="rank").item() == pytest.approx(by_hand)
    plain = sum(math.log1p(math.exp(-gap)) for gap in (0.5, 0.75, 0.25)) / 3
    assert ranking_loss(scores, [1, 2, 3], tie_normaliser="all_pairs").item() == pytest.approx(plain)


def test_dpo_with_margins_by_hand() -> None:
    chosen, rejected, zero = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 0.5]), torch.zeros(2)
    apart = torch.tensor([0.0, 2 / 3])
    found = preference_losses(
        chosen, rejected, zero, zero, beta=0.5, kind="sigmoid", label_smoothing=0.1, margins=apart
    ).losses

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    by_hand = [
        0.9 * softplus(-0.5 * 2.0) + 0.1 * softplus(0.5 * 2.0),
        0.9 * softplus(2 / 3 - 0.25) + 0.1 * softplus(2 / 3 + 0.25),
    ]
    assert found.tolist() == pytest.approx(by_hand, rel=1e-6)


def test_pairs_that_are_split_keep_their_places() -> None:
    ranked = RankedSequences([1], [[2], [3], [4]], [3, 1, 2])
    assert sorted((pair.completions, pair.ranks) for pair in split_into_pairs(ranked)) == [
        ([[3], [2]], [1, 3]),
        ([[3], [4]], [1, 2]),
        ([[4], [2]], [1, 2]),
    ]


@pytest.mark.parametrize("element", ["prompt", "pair"])
def test_the_reward_models_knob_is_read_and_ranks_with_gaps_are_closed(element: str) -> None:
    def first_loss(margin: str, stretch: int) -> float:
        given = [item.model_copy(update={"ranks": [stretch * rank for rank in item.ranks]}) for item in comparisons()]
        knobs = tiny.settings("reward_model", margin=margin, batch_element=element, **SMALL | {"batch_size": 64})
        model = scalar_model()
        learner = RewardLearner(model, given, tiny.tokenizer(), RewardModelConfig.model_validate(knobs), tiny.runtime())
        return learner.step()["train/loss"]

    assert first_loss("rank", 1) > first_loss("none", 1) + 1e-4
    assert first_loss("rank", 3) == first_loss("rank", 1)


def test_dpos_knob_is_read() -> None:
    def first_loss(margin: str) -> float:
        config = DPOConfig.model_validate(tiny.settings("dpo", margin=margin, **SMALL | {"batch_size": 64}))
        learner = DPOLearner(tiny.policy(1), tiny.policy(2), comparisons(), tiny.tokenizer(), config, tiny.runtime())
        return learner.step()["train/loss"]

    assert first_loss("rank") > first_loss("none") + 1e-4


def test_ipo_has_a_margin_of_its_own() -> None:
    with pytest.raises(ValueError, match="margin is rank and loss is ipo"):
        DPOConfig.model_validate(tiny.settings("dpo", margin="rank", loss="ipo"))
