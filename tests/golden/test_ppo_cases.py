"""Golden numbers of PPO (computed elsewhere, in float64)."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.language.generation import truncate_after_eos
from tasks.language.masked import masked_mean, masked_var, scale_to_unit_variance, whiten
from tasks.ppo.advantages import (
    Advantages,
    generalised_advantages,
    group_normalised_advantages,
    leave_one_out_advantages,
)
from tasks.ppo.config import PPOConfig
from tasks.ppo.kl_control import adapted_beta
from tasks.ppo.loss import clipped_policy_loss, clipped_value_loss
from tasks.ppo.ptx import compare_gradients, copy_gradients, loss_divisor, pretraining_loss
from tasks.ppo.rewards import MISSING_EOS_RULES, PLACEMENTS, Placement, per_token_rewards, place_on_eos
from tasks.ppo.rollout import Episodes, SpecialIds
from tasks.ppo.statistics import objective_statistics, policy_statistics, value_statistics
from tests.golden.cases import case, close
from tests.unit.ppo import tiny


def unpack(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The case itself (for its tolerance), its inputs and its outputs."""
    golden = case(name)
    return golden, golden["inputs"], golden["outputs"]


def doubles(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def booleans(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def estimate(inputs: dict[str, Any], position: str) -> tuple[Placement, Tensor, Advantages]:
    """Rewards and advantages of the two responses that the gae_* cases share."""
    responses = [truncate_after_eos(tokens, inputs["eos_id"]) for tokens in inputs["response_tokens"]]
    placement = PLACEMENTS[position](torch.tensor([len(response) for response in responses]), 5)  # type: ignore[index]
    rewards = per_token_rewards(
        doubles(inputs["score"]),
        doubles(inputs["logp_old"]),
        doubles(inputs["logp_ref"]),
        placement,
        beta=inputs["beta"],
    )
    estimates = generalised_advantages(
        rewards,
        doubles(inputs["values"]),
        placement.value_mask,
        discount=inputs["gamma"],
        gae_lambda=inputs["lam"],
    )
    return placement, rewards, estimates


@pytest.mark.point(39)
def test_score_on_eos() -> None:
    golden, inputs, outputs = unpack("gae_score_on_eos")
    placement, rewards, estimates = estimate(inputs, "on_eos")
    close(placement.score_index.tolist(), outputs["last_real_index"], golden)
    close(placement.response_mask.int().tolist(), outputs["mask"], golden)
    close(rewards.tolist(), outputs["rewards"], golden)
    close(estimates.advantages.tolist(), outputs["advantages"], golden)
    close(estimates.returns.tolist(), outputs["returns"], golden)
    close(
        whiten(estimates.advantages, placement.response_mask).tolist(),
        outputs["advantages_whitened_biased_var"],
        golden,
    )


@pytest.mark.point(39)
def test_score_after_eos() -> None:
    golden, inputs, outputs = unpack("gae_score_after_eos")
    placement, rewards, estimates = estimate(inputs, "after_eos")
    close(placement.response_mask.int().tolist(), outputs["policy_mask"], golden)
    close(placement.value_mask.int().tolist(), outputs["value_mask"], golden)
    close(rewards.tolist(), outputs["rewards"], golden)
    close(estimates.advantages.tolist(), outputs["advantages_raw"], golden)
    close(estimates.returns.tolist(), outputs["returns"], golden)
    for unbiased, key in ((False, "biased"), (True, "unbiased")):
        whitened = whiten(estimates.advantages, placement.response_mask, unbiased=unbiased)
        close(whitened.tolist(), outputs[f"advantages_whitened_{key}_var"], golden)


@pytest.mark.point(39)
def test_score_on_the_last_position() -> None:
    golden, inputs, outputs = unpack("gae_fixed_length_no_mask")
    placement, rewards, estimates = estimate(inputs, "last_position")
    close(rewards.tolist(), outputs["rewards"], golden)
    close(estimates.advantages.tolist(), outputs["advantages"], golden)
    close(estimates.returns.tolist(), outputs["returns"], golden)
    close(whiten(estimates.advantages, placement.response_mask).tolist(), outputs["advantages_whitened"], golden)


@pytest.mark.point(38)
def test_per_token_rewards() -> None:
    golden, inputs, outputs = unpack("per_token_kl_reward")
    placement = place_on_eos(torch.tensor([inputs["eos_index"] + 1]), 5)
    logprobs, reference = doubles([inputs["logp_policy"]]), doubles([inputs["logp_ref"]])
    score = doubles([inputs["score"]])
    rewards = per_token_rewards(score, logprobs, reference, placement, beta=inputs["beta"])
    close(rewards[0].tolist(), outputs["rewards"], golden)
    close(rewards.sum().item(), outputs["total"], golden)
    without = per_token_rewards(0.0 * score, logprobs, reference, placement, beta=inputs["beta"])
    close(without[0].tolist(), outputs["non_score_reward"], golden)
    numbers = objective_statistics(score, logprobs, reference, placement.response_mask, beta=inputs["beta"])
    close(numbers["objective/kl"], outputs["sequence_logratio"], golden)
    close(numbers["objective/reward"], outputs["score_minus_beta_kl"], golden)


@pytest.mark.parametrize("name", ["ppo_policy_loss", "ppo_policy_loss_first_step"])
@pytest.mark.point(44, 45)
def test_policy_loss(name: str) -> None:
    golden, inputs, outputs = unpack(name)
    new = doubles(inputs["logp_new"]).requires_grad_()
    old, advantages, mask = doubles(inputs["logp_old"]), doubles(inputs["advantages"]), booleans(inputs["mask"])
    clip = inputs["cliprange"]
    loss = clipped_policy_loss(new, old, advantages, mask, clip=clip, token_count=int(mask.sum()))
    loss.backward()
    close(loss.item(), outputs["loss_token_mean"], golden)
    if "grad_wrt_logp_new" in outputs:
        assert new.grad is not None
        close(new.grad.tolist(), outputs["grad_wrt_logp_new"], golden)
    numbers = policy_statistics(new.detach(), old, advantages, mask, clip=clip)
    close(numbers["policy/loss"], outputs["loss_token_mean"], golden)
    close(numbers["policy/clip_fraction"], outputs["clipfrac"], golden)
    close(numbers["policy/approx_kl"], outputs["approx_kl_half_sq"], golden)
    close(numbers["policy/approx_kl_k3"], outputs["approx_kl_k3"], golden)
    real = doubles(outputs["ratio"])[mask]
    close(numbers["ratio/mean"], real.mean().item(), golden)
    close(numbers["ratio/max"], real.max().item(), golden)
    close(numbers["ratio/var"], real.var(correction=0).item(), golden)


def test_policy_loss_is_a_mean_over_tokens_not_over_sequences() -> None:
    golden, inputs, outputs = unpack("ppo_policy_loss")
    mask = booleans(inputs["mask"])
    rows = [
        clipped_policy_loss(
            *(doubles(inputs[key])[row : row + 1] for key in ("logp_new", "logp_old", "advantages")),
            mask[row : row + 1],
            clip=inputs["cliprange"],
            token_count=int(mask[row].sum()),
        ).item()
        for row in range(2)
    ]
    close(sum(rows) / 2, outputs["loss_sequence_mean"], golden)  # what one microbatch per row would silently give


@pytest.mark.point(46)
def test_value_loss() -> None:
    golden, inputs, outputs = unpack("value_loss_clipped")
    new, old, returns = (doubles(inputs[key]) for key in ("values_new", "values_old", "returns"))
    mask, clip = booleans(inputs["mask"]), inputs["cliprange_value"]
    loss = clipped_value_loss(new, old, returns, mask, clip=clip, token_count=int(mask.sum()))
    close(loss.item(), outputs["value_loss"], golden)
    numbers = value_statistics(new, old, returns, mask, clip=clip)
    close(numbers["value/loss"], outputs["value_loss"], golden)
    close(numbers["value/clip_fraction"], outputs["value_clipfrac"], golden)
    close(numbers["value/error"], outputs["error"], golden)
    close(numbers["value/explained_variance"], outputs["explained_variance"], golden)


def test_both_losses_after_eos() -> None:
    golden, inputs, outputs = unpack("ppo_total_loss_after_eos_convention")
    policy_mask, value_mask = booleans(inputs["policy_mask"]), booleans(inputs["value_mask"])
    policy = clipped_policy_loss(
        *(doubles(inputs[key]) for key in ("logp_new", "logp_old", "advantages")),
        policy_mask,
        clip=inputs["cliprange"],
        token_count=int(policy_mask.sum()),
    )
    values = [doubles(inputs[key]) for key in ("values_new", "values_old", "returns")]
    value = clipped_value_loss(*values, value_mask, clip=inputs["cliprange_value"], token_count=int(value_mask.sum()))
    close(policy.item(), outputs["policy_loss"], golden)
    close(value.item(), outputs["value_loss"], golden)
    numbers = value_statistics(*values, value_mask, clip=inputs["cliprange_value"])
    close(numbers["value/clip_fraction"], outputs["value_clipfrac"], golden)
    close(policy.item() + inputs["vf_coef"] * value.item(), outputs["total"], golden)


@pytest.mark.point(42)
def test_whitening_of_rewards_and_advantages() -> None:
    golden, inputs, outputs = unpack("whitening")
    x, mask = doubles(inputs["x"]), booleans(inputs["mask"])
    everything = torch.ones_like(mask)
    close(whiten(x, everything).tolist(), outputs["full_biased_shift"], golden)
    close(scale_to_unit_variance(x, everything).tolist(), outputs["full_biased_noshift"], golden)
    close(scale_to_unit_variance(x, everything, unbiased=True).tolist(), outputs["full_unbiased_noshift"], golden)
    close(whiten(x, mask).tolist(), outputs["masked_biased_shift"], golden)
    close(scale_to_unit_variance(x, mask).tolist(), outputs["masked_biased_noshift"], golden)
    close(whiten(x, mask, unbiased=True).tolist(), outputs["masked_unbiased_shift"], golden)
    whitened = whiten(x, mask)
    close([masked_mean(whitened, mask).item(), masked_var(whitened, mask).item()], [0.0, 1.0], {"tolerance": 1e-6})


@pytest.mark.point(49)
def test_adaptive_kl() -> None:
    golden, inputs, outputs = unpack("adaptive_kl")
    beta = inputs["beta0"]
    for kl, expected in zip(inputs["observed_kl"], outputs["trace"], strict=True):
        beta = adapted_beta(beta, kl, target=inputs["target"], horizon=inputs["horizon"], episodes=inputs["n_episodes"])
        close(beta, expected["beta_after"], golden)
    close(beta, outputs["final_beta"], golden)


@pytest.mark.point(29)
def test_truncation_and_missing_eos() -> None:
    golden, inputs, outputs = unpack("truncate_and_eos")
    ids = SpecialIds(eos=inputs["eos_id"], pad=inputs["pad_id"])
    truncated = [truncate_after_eos(response, ids.eos) for response in inputs["responses"]]
    padded = [response + [ids.pad] * (5 - len(response)) for response in truncated]
    assert padded == outputs["truncated"]
    assert [len(response) for response in truncated] == outputs["response_length"]
    placement = place_on_eos(torch.tensor([len(response) for response in truncated]), 5)
    close(placement.score_index.tolist(), outputs["last_real_index"], golden)

    # sampled past EOS, as the 2019 code does: trained on in full, scored up to the first EOS
    config = tiny.config(score_position="last_position", response_tokens=5)
    episodes = Episodes.of([[3]] * 5, inputs["responses"], config, ids)
    assert episodes.scored == truncated and episodes.responses == inputs["responses"]
    assert [int(finished) for finished in episodes.finished] == outputs["contains_eos"]

    scores, finished = doubles(inputs["raw_scores"]), torch.tensor(episodes.finished)
    close(MISSING_EOS_RULES["replace"](scores, finished, -1.0).tolist(), outputs["score_fixed_minus_one"], golden)
    close(MISSING_EOS_RULES["subtract"](scores, finished, -1.0).tolist(), outputs["score_subtract_one"], golden)


@pytest.mark.point(56)
def test_two_backward_passes_accumulate() -> None:
    golden, inputs, outputs = unpack("ptx_gradient_accumulation")
    weight = doubles(inputs["W"]).requires_grad_()
    new = torch.log_softmax(doubles(inputs["policy_inputs"]) @ weight.T, dim=1)
    taken = new.gather(1, torch.tensor(inputs["actions"]).unsqueeze(1))
    loss = clipped_policy_loss(
        taken,
        doubles(inputs["logp_old"]).unsqueeze(1),
        doubles(inputs["advantages"]).unsqueeze(1),
        torch.ones(2, 1, dtype=torch.bool),
        clip=inputs["cliprange"],
        token_count=2,
    )
    loss.backward()
    close(loss.item(), outputs["policy_loss"], golden)
    assert weight.grad is not None
    close(weight.grad.tolist(), outputs["grad_policy"], golden)
    policy_gradients = copy_gradients([weight])
    logits = doubles(inputs["pretrain_inputs"]) @ weight.T
    nll = torch.nn.functional.cross_entropy(logits, torch.tensor(inputs["pretrain_targets"]))
    close(nll.item(), outputs["ptx_nll"], golden)
    (inputs["gamma"] * nll).backward()
    close(weight.grad.tolist(), outputs["grad_accumulated"], golden)

    pair = compare_gradients(policy_gradients, [weight])
    policy, ptx = doubles(outputs["grad_policy"]), inputs["gamma"] * doubles(outputs["grad_ptx"])
    close(pair.policy_norm, policy.norm().item(), golden)
    close(pair.ptx_norm, ptx.norm().item(), golden)
    close(pair.cosine, (policy * ptx).sum().item() / (policy.norm() * ptx.norm()).item(), golden)


def test_pretraining_loss_is_what_the_reduction_says() -> None:
    """Rows of 5 tokens: 4 targets each; of a row, the loss sums them."""
    model, rows = tiny.policy(), torch.tensor([[3, 4, 5, 6, 7], [8, 9, 3, 1, 10], [5, 5, 7, 9, 4]])
    logprobs = torch.log_softmax(model(rows).logits[:, :-1].double(), dim=-1).gather(2, rows[:, 1:, None])
    for reduction, expected in (("token_mean", -logprobs.sum() / 12), ("row_sum", -logprobs.sum() / 3)):
        divisor = loss_divisor(3, 5, reduction)  # type: ignore[arg-type]
        found = pretraining_loss(model, rows, divisor=divisor)
        close(found, expected, {"tolerance": 1e-5})


@pytest.mark.point(65)
def test_group_advantages() -> None:
    golden, inputs, outputs = unpack("rloo_grpo")
    rewards = doubles(inputs["rewards"])
    close(leave_one_out_advantages(rewards).tolist(), outputs["rloo"], golden)
    close(group_normalised_advantages(rewards).tolist(), outputs["grpo_unbiased_std"], golden)


@pytest.mark.point(59)
def test_objective_of_the_worked_example() -> None:
    golden, inputs, outputs = unpack("seed004_objective")
    # one response of one token: its two sequence probabilities, and one pretraining text
    logprobs, reference = doubles([[math.log(inputs["p_policy"])]]), doubles([[math.log(inputs["p_ref"])]])
    for key, total in outputs.items():
        if not key.startswith("total_"):
            continue
        beta, gamma = (float(part.split("=")[1]) for part in key.split("_")[1:])
        numbers = objective_statistics(doubles([inputs["reward"]]), logprobs, reference, booleans([[True]]), beta=beta)
        close(numbers["objective/kl"], outputs["log_ratio"], golden)
        close(numbers["objective/reward"] + gamma * inputs["logp_pretrain"], total, golden)


@pytest.mark.point(50, 57)
def test_counts_of_a_published_run() -> None:
    _, inputs, outputs = unpack("run_arithmetic")
    paper = tiny.shipped("paper")
    config = PPOConfig.model_validate(paper)
    assert (config.episodes, config.episodes_per_iteration, config.minibatch_size) == (
        inputs["episodes"],
        inputs["batch"],
        inputs["minibatch"],
    )
    assert (config.ptx_examples_per_episode, config.inner_epochs) == (inputs["ptx_ratio"], inputs["inner_epochs"])
    assert config.iterations == outputs["ppo_iterations"]
    assert config.minibatches_per_iteration == outputs["minibatches_per_iteration"]
    assert config.optimizer_steps == outputs["optimizer_steps"]
    assert config.ptx_rows_per_minibatch == outputs["ptx_examples_per_minibatch"]
    assert config.optimizer_steps * config.ptx_rows_per_minibatch == outputs["ptx_examples_total"]


@pytest.mark.point(47)
def test_clip_fraction_counts_clipped_branches_and_not_ratios_outside() -> None:
    golden, inputs, outputs = unpack("ppo_policy_loss")
    mask = booleans(inputs["mask"])
    new, old, advantages = (doubles(inputs[key]) for key in ("logp_new", "logp_old", "advantages"))
    found = policy_statistics(new, old, advantages, mask, clip=inputs["cliprange"])["policy/clip_fraction"]
    outside = ((torch.exp(new - old)[mask] - 1).abs() > inputs["cliprange"]).double().mean().item()
    close([found, outside], [outputs["clipfrac"], outputs["frac_ratio_outside"]], golden)
    assert outputs["clipfrac"] != outputs["frac_ratio_outside"]
