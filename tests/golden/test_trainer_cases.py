"""Golden numbers of fine-tuning and reward-model training (computed elsewhere, in float64)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from tasks.dpo.loss import preference_losses
from tasks.records.rankings import epoch_batches, ordered_pairs, rank_pairs
from tasks.reward_model.calibrate import calibration, preference_probabilities, unit_variance, zero_mean_bias
from tasks.reward_model.loss import pairwise_losses, ranking_loss, summed_ranking_loss
from tasks.sft.loss import summed_nll
from tasks.sft.plan import plan_batches
from tests.golden.cases import case, close


def opened(name: str) -> tuple[dict[str, Any], dict[str, Any], Callable[[Any, Any], None]]:
    """Inputs, outputs, and a comparison at the case's own tolerance."""
    golden = case(name)
    return golden["inputs"], golden["outputs"], partial(close, case=golden)


def scores_of(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def check_ranking(
    rewards: list[float], ranks: list[int], normaliser: str, wanted: dict[str, Any], close: Callable[[Any, Any], None]
) -> None:
    scores = scores_of(rewards)
    loss = ranking_loss(scores, ranks, tie_normaliser=normaliser)  # type: ignore[arg-type]
    loss.backward()
    close(loss.item(), wanted["loss"])
    close(scores.grad.tolist(), wanted["grad"])
    assert [(pair["winner"], pair["loser"]) for pair in wanted["pairs"]] == ordered_pairs(ranks)


@pytest.mark.point(18)
def test_ranking_loss_and_gradient() -> None:
    inputs, outputs, close = opened("rm_ranking_K4")
    check_ranking(inputs["rewards"], inputs["ranks"], "all_pairs", outputs, close)
    check_ranking(inputs["rewards"], inputs["ranks"], "surviving_pairs", outputs, close)


@pytest.mark.parametrize(("normaliser", "key"), [("all_pairs", "full"), ("surviving_pairs", "surviving")])
@pytest.mark.point(19)
def test_ties_are_dropped(normaliser: str, key: str) -> None:
    inputs, outputs, close = opened("rm_ranking_K4_tie")
    check_ranking(inputs["rewards"], inputs["ranks"], normaliser, outputs[key], close)


@pytest.mark.point(20)
def test_every_prompt_weighs_the_same() -> None:
    inputs, outputs, close = opened("rm_ranking_batch")
    flat = scores_of([reward for rewards in inputs["rewards"] for reward in rewards])
    loss = summed_ranking_loss(flat, rank_pairs(inputs["ranks"], "all_pairs")) / len(inputs["ranks"])
    close(loss.item(), outputs["batch_loss"])
    assert abs(loss.item() - outputs["wrong_pooled_pair_mean"]) > 1e-3


@pytest.mark.point(21)
def test_uninformed_loss_is_ln_2() -> None:
    inputs, outputs, close = opened("rm_uninformed")
    scores = scores_of(inputs["rewards"])
    loss = ranking_loss(scores, inputs["ranks"], tie_normaliser="all_pairs")
    loss.backward()
    close(loss.item(), outputs["ln2"])
    close(scores.grad.tolist(), outputs["grad"])
    ranked, _, _ = opened("rm_ranking_K4")
    shifted = scores_of([reward + 7.0 for reward in ranked["rewards"]])
    close(ranking_loss(shifted, ranked["ranks"], tie_normaliser="all_pairs").item(), outputs["loss_shifted_by_7"])


@pytest.mark.point(65)
def test_single_pairs_with_and_without_margin() -> None:
    inputs, outputs, close = opened("rm_pairwise_margin")
    chosen, rejected, margin = (scores_of(inputs[name]) for name in ("chosen", "rejected", "margin"))
    close(pairwise_losses(chosen, rejected).tolist(), outputs["per_pair_plain"])
    close(pairwise_losses(chosen, rejected).mean().item(), outputs["plain"])
    close(pairwise_losses(chosen, rejected, margin).tolist(), outputs["per_pair_margin"])
    close(pairwise_losses(chosen, rejected, margin).mean().item(), outputs["margin_loss"])


@pytest.mark.point(65)
def test_dpo_family() -> None:
    inputs, outputs, close = opened("dpo_family")
    names = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
    logprobs = [scores_of(inputs[name]) for name in names]
    plain = preference_losses(*logprobs, beta=inputs["beta"], kind="sigmoid", label_smoothing=0.0)
    close(plain.log_ratio_gaps.tolist(), outputs["delta"])
    close(plain.losses.tolist(), outputs["dpo_per_pair"])
    close(plain.losses.mean().item(), outputs["dpo"])
    close(plain.chosen_rewards.tolist(), outputs["implicit_reward_chosen"])
    close(plain.rejected_rewards.tolist(), outputs["implicit_reward_rejected"])
    conservative = preference_losses(*logprobs, beta=inputs["beta"], kind="sigmoid", label_smoothing=0.1)
    close(conservative.losses.mean().item(), outputs["cdpo_0p1"])
    squared = preference_losses(*logprobs, beta=inputs["beta"], kind="ipo", label_smoothing=0.0)
    close(squared.losses.mean().item(), outputs["ipo"])


@pytest.mark.point(24)
def test_demonstrations_average_zero() -> None:
    inputs, outputs, close = opened("reward_normalisation")
    demonstrations = scores_of(inputs["demo_rewards"]).detach()
    bias = zero_mean_bias(demonstrations)
    close(bias, outputs["bias_subtracted"])
    close((demonstrations - bias).tolist(), outputs["demo_after"])
    close([reward - bias for reward in inputs["other_rewards"]], outputs["other_after"])


@pytest.mark.point(24)
def test_samples_of_the_2019_code_have_unit_variance() -> None:
    inputs, outputs, close = opened("reward_normalisation")
    samples = scores_of(inputs["policy_sample_rewards"]).detach()
    gain, shift = unit_variance(samples)
    close(gain, outputs["gain_2019"])
    close(-gain * shift, outputs["bias_2019"])
    close((gain * (samples - shift)).tolist(), outputs["policy_after_2019"])


@pytest.mark.point(27)
def test_calibration() -> None:
    inputs, outputs, close = opened("rm_calibration")
    differences = torch.tensor(inputs["reward_difference"], dtype=torch.float64)
    preferred = torch.tensor(inputs["label_a_preferred"])
    measured = calibration(differences, preferred, edges=[0.5, 0.7, 1.0])
    close(preference_probabilities(differences).tolist(), outputs["p"])
    close(measured.accuracy, outputs["accuracy"])
    close(measured.brier, outputs["brier"])
    close(measured.log_loss, outputs["log_loss"])
    close(measured.expected_calibration_error, outputs["ece_two_bins"])


@pytest.mark.point(8)
def test_sft_loss_counts_completion_and_eos() -> None:
    inputs, outputs, close = opened("sft_loss_mask")
    logits = torch.tensor(inputs["logits"], dtype=torch.float64)
    targets = torch.tensor(inputs["tokens"])[1:]
    logprobs = torch.log_softmax(logits[:-1], dim=-1).gather(1, targets[:, None]).T  # (1, 4)
    close(logprobs[0].tolist(), outputs["per_target_logp"])
    counted = torch.tensor([outputs["target_mask"]]).bool()
    assert counted.tolist() == [[position >= inputs["prompt_len"] for position in range(1, 5)]]
    close((summed_nll(logprobs, counted) / counted.sum()).item(), outputs["loss_masked_token_mean"])
    everything = torch.ones_like(counted)
    close((summed_nll(logprobs, everything) / 4).item(), outputs["loss_unmasked_token_mean"])


@pytest.mark.point(23)
def test_published_step_counts() -> None:
    inputs, outputs, _ = opened("run_arithmetic")
    plan = plan_batches(
        inputs["sft_examples"],
        epochs=inputs["sft_epochs"],
        batch_size=inputs["sft_batch"],
        pretraining_fraction=0.0,
        seed=0,
    )
    assert len(plan) == outputs["sft_steps"]
    batches = epoch_batches(inputs["rm_prompts"], epochs=1, batch_size=inputs["rm_batch_prompts"], seed=0)
    assert len(batches) == outputs["rm_steps"]
    largest = len(ordered_pairs(list(range(1, inputs["K_max"] + 1))))
    assert largest * inputs["rm_batch_prompts"] == outputs["rm_pairs_per_batch_max"]
    assert largest * inputs["rm_prompts"] == outputs["rm_pairs_max"]
    assert math.comb(4, 2) * inputs["rm_prompts"] == outputs["rm_pairs_min"]
