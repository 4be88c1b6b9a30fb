"""Invariants of a whole PPO run on a tiny model."""

import copy
import io
import math
from typing import Any

import pytest
import torch

from tasks.engine.errors import DataError, ModelError
from tasks.language.batches import pad_batch
from tasks.ppo import rollout
from tasks.ppo.learner import PPOLearner
from tasks.ppo.rollout import Networks
from tests.unit.ppo import tiny

PROMISED = {
    "objective": "kl score reward entropy",
    "policy": "loss clip_fraction approx_kl entropy grad_norm learning_rate",
    "value": "loss clip_fraction explained_variance grad_norm",
    "ratio": "mean max var",
    "ptx": "loss grad_norm grad_ratio grad_cosine",
    "response": "length eos_rate score_without_eos",
    "kl": "beta",
}


def weights(learner: PPOLearner) -> list[torch.Tensor]:
    """Copies of everything that training moves."""
    networks = (learner.networks.policy, learner.networks.value_model, learner.final_policy())
    return [parameter.detach().clone() for network in networks for parameter in network.parameters()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.point(29)
def test_every_statistic_is_reported_and_finite() -> None:
    metrics = tiny.learner().step()
    assert {f"{topic}/{name}" for topic, names in PROMISED.items() for name in names.split()} <= set(metrics)
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("tokens_per_microbatch", [10_000, 30])
@pytest.mark.point(44)
def test_first_minibatch_ratios_are_exactly_one(tokens_per_microbatch: int) -> None:
    learner = tiny.learner(minibatch_size=16, runtime_changes={"tokens_per_microbatch": tokens_per_microbatch})
    for _ in range(3):  # the value and policy models have moved by then; the identity holds all the same
        metrics = learner.step()
        assert (metrics["ratio/mean"], metrics["ratio/max"], metrics["ratio/var"]) == (1.0, 1.0, 0.0)
        assert (metrics["policy/clip_fraction"], metrics["policy/approx_kl"]) == (0.0, 0.0)
        assert metrics["value/clip_fraction"] == 0.0


@pytest.mark.point(36)
def test_kl_at_the_first_iteration_is_exactly_zero() -> None:
    learner = tiny.learner()
    assert learner.step()["objective/kl"] == 0.0
    assert learner.last_rollout is not None
    assert torch.equal(learner.last_rollout.logprobs, learner.last_rollout.reference_logprobs)
    assert learner.step()["objective/kl"] != 0.0


def test_microbatches_change_nothing() -> None:
    unclipped = {name: {**tiny.settings()[name], "max_grad_norm": 1e6} for name in ("policy_adam", "value_adam")}
    gradients = []
    for tokens in (10_000, 60, 1):
        changes = {"tokens_per_microbatch": tokens}
        learner = tiny.learner(minibatch_size=16, runtime_changes=changes, **unclipped)
        learner.step()
        trained = (learner.networks.policy, learner.networks.value_model)
        gradients.append([p.grad for network in trained for p in network.parameters()])
    for other in gradients[1:]:
        for whole, cut in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(whole, cut, rtol=1e-4, atol=1e-6)


@pytest.mark.point(34)
def test_dropout_is_off_while_training() -> None:
    learner = tiny.learner(minibatch_size=16)
    learner.networks.policy.config.attention_dropout = 0.5
    for module in learner.networks.policy.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    for network in learner.networks:
        network.train()
    assert learner.step()["ratio/var"] == 0.0


@pytest.mark.point(35)
def test_frozen_networks_stay_as_they_are() -> None:
    learner = tiny.learner()
    frozen = (learner.networks.reference, learner.networks.reward_model)
    before = [p.clone() for network in frozen for p in network.parameters()]
    learner.step()
    after = [p for network in frozen for p in network.parameters()]
    assert same(before, after)
    assert all(not p.requires_grad and p.grad is None for p in after)


@pytest.mark.point(58)
def test_pretraining_gradients_touch_only_the_policy() -> None:
    learner = tiny.learner()
    assert learner.ptx_cursor is not None
    rows = learner.ptx_cursor.draw(4)
    learner.update._ptx_backward([rows], rows.shape)
    others = (learner.networks.reference, learner.networks.reward_model, learner.networks.value_model)
    assert all(p.grad is not None for p in learner.networks.policy.parameters())
    assert all(p.grad is None for network in others for p in network.parameters())


@pytest.mark.point(52)
def test_value_model_starts_by_reading_the_reward_model_s_score() -> None:
    learner = tiny.learner(score_position="after_eos", missing_eos="none")
    for parameter in learner.networks.value_model.parameters():
        assert all(parameter.data_ptr() != p.data_ptr() for p in learner.networks.reward_model.parameters())
    learner.step()
    rollout = learner.last_rollout
    assert rollout is not None
    short = rollout.lengths < 6
    assert bool(short.any())
    final_values = rollout.values.gather(1, rollout.placement.score_index.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(final_values[short], rollout.raw_score[short], rtol=0, atol=1e-6)


def test_resuming_is_exact() -> None:
    changes: dict[str, Any] = {"kl_controller": "adaptive", "inner_epochs": 2}
    straight = tiny.learner(**changes)
    expected = [straight.step() for _ in range(4)]
    first = tiny.learner(**changes)
    found = [first.step() for _ in range(2)]
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = tiny.learner(**changes)
    second.load_state_dict(torch.load(file, weights_only=True))
    assert second.completed_steps == 2
    found += [second.step() for _ in range(2)]
    assert found == expected
    assert same(weights(straight), weights(second))


@pytest.mark.point(56)
def test_gamma_zero_is_bit_equal_to_plain_ppo() -> None:
    with_documents = tiny.learner(gamma=0.0)
    plain = PPOLearner(tiny.networks(), tiny.tokenizer(), tiny.prompts(), [], tiny.config(gamma=0.0), tiny.RUNTIME)
    for _ in range(2):
        metrics = with_documents.step()
        assert metrics == plain.step()
        assert not any(name.startswith("ptx/") for name in metrics)
    assert same(weights(with_documents), weights(plain))
    mixed = tiny.learner(gamma=2.0)
    mixed.step(), mixed.step()
    assert not same(weights(mixed), weights(plain))


def test_the_pretraining_loss_of_whole_rows_is_gamma_times_their_tokens() -> None:
    """Rows of 8 tokens have 7 targets: gamma on rows is 7 gamma on tokens, and the reported loss is per token."""
    unclipped = {"policy_adam": {**tiny.settings()["policy_adam"], "max_grad_norm": 1e9}}
    rows = tiny.learner(gamma=2.0, ptx_reduction="row_sum", **unclipped)
    tokens = tiny.learner(gamma=14.0, ptx_reduction="token_mean", **unclipped)
    of_rows, of_tokens = rows.step(), tokens.step()
    for name in ("ptx/loss", "ptx/grad_norm", "ptx/grad_ratio"):
        assert of_rows[name] == pytest.approx(of_tokens[name], rel=1e-5)
    for a, b in zip(weights(rows), weights(tokens), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize("estimator", ["leave_one_out", "group_normalised"])
def test_advantages_of_whole_responses_keep_and_train_no_value_model(estimator: str) -> None:
    changes: dict[str, Any] = {"advantage_estimator": estimator, "responses_per_prompt": 4, "whiten_advantages": False}
    learner = tiny.learner(**changes)
    assert learner.networks.value_model is None and learner.optimizers.value is None
    metrics = learner.step()
    assert not any(name.startswith("value/") for name in metrics)
    assert learner.last_rollout is not None and learner.last_rollout.values is None
    assert "values" not in learner.inspection().tensors
    bare = PPOLearner(
        tiny.networks()._replace(value_model=None), tiny.tokenizer(), tiny.prompts(), tiny.documents(),
        tiny.config(**changes), tiny.RUNTIME,
    )  # fmt: skip
    file = io.BytesIO()
    torch.save(learner.state_dict(), file)
    file.seek(0)
    bare.load_state_dict(torch.load(file, weights_only=True))
    assert bare.step() == learner.step()


@pytest.mark.parametrize("estimator", ["leave_one_out", "group_normalised"])
def test_group_estimators_compare_responses_to_one_prompt(estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = tiny.learner(
        advantage_estimator=estimator, responses_per_prompt=4, whiten_advantages=False, beta=0.1, reference_seed=3
    )
    seen: list[Any] = []
    update = learner.update
    monkeypatch.setattr(learner, "update", lambda *given: seen.append(given[1]) or update(*given))  # type: ignore[func-returns-value]
    learner.step()
    experience, episodes = seen[0], learner.last_episodes
    assert episodes is not None
    assert [episodes.prompts[4 * group] for group in range(4) for _ in range(4)] == episodes.prompts
    assert len({tuple(prompt) for prompt in episodes.prompts}) == 4
    mask = experience.rollout.placement.response_mask
    log_ratio = ((experience.rollout.logprobs - experience.rollout.reference_logprobs) * mask).sum(dim=1)
    totals = (experience.rollout.score - 0.1 * log_ratio).double().tolist()
    for row, total in enumerate(totals):
        group = totals[row // 4 * 4 : row // 4 * 4 + 4]
        mean = sum(group) / 4
        if estimator == "leave_one_out":
            expected = total - (sum(group) - total) / 3
        else:
            expected = (total - mean) / (math.sqrt(sum((r - mean) ** 2 for r in group) / 3) + 1e-4)
        found = experience.advantages[row]
        torch.testing.assert_close(found, expected * mask[row].float(), rtol=0, atol=1e-5)


def test_gamma_does_not_disturb_what_is_sampled_first() -> None:
    plain, mixed = tiny.learner(gamma=0.0), tiny.learner(gamma=2.0)
    plain.step(), mixed.step()
    assert plain.last_episodes == mixed.last_episodes


@pytest.mark.point(57)
def test_pretraining_rows_per_step_and_prompts_per_pass() -> None:
    learner = tiny.learner()
    assert learner.ptx_cursor is not None
    drawn: list[int] = []
    original = learner.ptx_cursor.draw

    def counting(count: int) -> torch.Tensor:
        drawn.append(count)
        return original(count)

    learner.ptx_cursor.draw = counting  # type: ignore[method-assign]
    chosen = []
    for _ in range(4):
        learner.step()
        chosen += [sample.prompt.prompt_id for sample in learner.samples(16)]
    assert drawn == [16] * 8  # 2 rows per episode, 8 episodes per step, 2 steps per iteration
    passes = chosen[:20], chosen[20:40], chosen[40:60]
    assert all(sorted(one, key=int) == [str(i) for i in range(20)] for one in passes)
    assert passes[0] != passes[1]


@pytest.mark.point(50)
def test_minibatches_are_disjoint_and_cover_the_iteration() -> None:
    learner = tiny.learner(minibatch_size=4, runtime_changes={"tokens_per_microbatch": 40})
    learner.step()
    assert learner.last_episodes is not None
    rows = [
        [row for cut in minibatch.cuts for row in cut.rows.tolist()]
        for minibatch in learner._minibatches(learner.last_episodes)
    ]
    assert [len(minibatch) for minibatch in rows] == [4, 4, 4, 4]
    assert sorted(row for minibatch in rows for row in minibatch) == list(range(16))


def test_every_inner_epoch_has_its_own_permutation() -> None:
    learner = tiny.learner(inner_epochs=3)
    order = torch.Generator()
    order.set_state(learner.minibatching.get_state())
    trained: list[list[int]] = []
    update = learner.update

    def spying(minibatch: Any, *rest: Any) -> Any:
        trained.append(sorted(row for cut in minibatch.cuts for row in cut.rows.tolist()))
        return update(minibatch, *rest)

    learner.update = spying  # type: ignore[assignment]
    learner.step()
    halves = [half for _ in range(3) for half in torch.randperm(16, generator=order).split(8)]
    assert trained == [sorted(half.tolist()) for half in halves]
    assert trained[:2] != trained[2:4] != trained[4:]


def test_a_response_sampled_past_eos_is_scored_up_to_it() -> None:
    learner = tiny.learner(score_position="last_position", missing_eos="none")
    learner.step()
    episodes, rollout = learner.last_episodes, learner.last_rollout
    assert episodes is not None and rollout is not None
    assert any(len(scored) < 6 for scored in episodes.scored)
    for row, response in enumerate(episodes.responses):
        read = response[: response.index(1) + 1] if 1 in response else response
        alone = learner.networks.reward_model.scores(pad_batch([episodes.prompts[row]], [read], 0))
        torch.testing.assert_close(rollout.raw_score[row], alone[0], rtol=0, atol=1e-5)


@pytest.mark.point(15, 53)
def test_learning_rates_warm_up_only_for_the_policy() -> None:
    learner = tiny.learner(warmup_iterations=2)
    peak = learner.config.policy_adam.learning_rate
    rates = [learner.step()["policy/learning_rate"] for _ in range(4)]
    assert rates == pytest.approx([0.1 * peak, 0.55 * peak, peak, peak])
    assert learner.optimizers.value.optimizer.param_groups[0]["lr"] == learner.config.value_adam.learning_rate
    for descent in learner.optimizers:
        assert descent.optimizer.param_groups[0]["betas"] == (0.9, 0.95)


@pytest.mark.point(54)
def test_the_average_moves_once_per_step_or_per_iteration() -> None:
    for every, decay in (("step", 0.0), ("iteration", 0.0)):
        learner = tiny.learner(ema_every=every, ema_decay=decay)
        learner.step()
        live = list(learner.networks.policy.parameters())
        assert same([p.detach() for p in live], [p.detach() for p in learner.final_policy().parameters()])
    start = [p.detach().clone() for p in tiny.policy().parameters()]
    iteration = tiny.learner(ema_every="iteration", ema_decay=0.75)
    iteration.step()
    moved = zip(start, iteration.networks.policy.parameters(), iteration.final_policy().parameters(), strict=True)
    for before, live_now, averaged in moved:
        torch.testing.assert_close(averaged, 0.75 * before + 0.25 * live_now)
    step = tiny.learner(ema_every="step", ema_decay=0.75)
    step.step()
    assert not same(weights(iteration), weights(step))


@pytest.mark.point(54)
def test_sampling_uses_the_live_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = tiny.learner()
    learner.step()
    live = [p.detach().clone() for p in learner.networks.policy.parameters()]
    averaged = [p.detach().clone() for p in learner.final_policy().parameters()]
    seen: list[torch.Tensor] = []
    sample = learner.engine.sample

    def spying(policy: Any, *rest: Any) -> Any:
        seen.extend(p.detach().clone() for p in policy.parameters())
        return sample(policy, *rest)

    monkeypatch.setattr(learner.engine, "sample", spying)
    learner.step()
    assert same(seen, live) and not same(seen, averaged)


@pytest.mark.point(49)
def test_beta_is_fixed_unless_adaptive() -> None:
    fixed = tiny.learner(beta=0.02)
    assert [fixed.step()["kl/beta"] for _ in range(3)] == [0.02] * 3
    steered = tiny.learner(beta=0.02, kl_controller="adaptive", kl_target=6.0, kl_horizon=160.0)
    first, second = steered.step()["kl/beta"], steered.step()["kl/beta"]
    assert (first, second) == pytest.approx((0.02, 0.02 * (1 - 0.2 * 16 / 160)))


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_the_steered_beta_is_the_one_that_is_paid(kl_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.ppo import learner as module

    changes: dict[str, Any] = {"kl_controller": "adaptive", "kl_target": 1e-3, "kl_horizon": 16.0, "kl_in": kl_in}
    learner = tiny.learner(beta=0.1, reference_seed=3, **changes)
    rewards: list[torch.Tensor] = []
    honest, experience, prices = module.per_token_rewards, learner._experience, list[float]()
    monkeypatch.setattr(module, "per_token_rewards", lambda *a, **k: rewards.append(honest(*a, **k)) or rewards[-1])
    monkeypatch.setattr(learner, "_experience", lambda r: prices.append(experience(r).kl_price) or experience(r))
    for beta in (0.1, 0.12, 0.144):  # the KL is far above its target: a fifth more each time
        assert learner.step()["kl/beta"] == pytest.approx(beta)
        rollout = learner.last_rollout
        assert rollout is not None
        paid = rollout.score - beta * ((rollout.logprobs - rollout.reference_logprobs).sum(dim=1))
        torch.testing.assert_close(rewards[-1].sum(dim=1), paid if kl_in == "reward" else rollout.score)
        assert prices[-1] == pytest.approx(beta if kl_in == "loss" else 0.0)


@pytest.mark.parametrize("score_position", ["on_eos", "after_eos", "last_position"])
def test_sampled_logprobs_train_as_recomputed_ones(score_position: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, and without the policy's forward pass over finished responses."""
    passes: list[Any] = []
    usual = rollout.response_logprobs

    def counting(model: Any, *rest: Any, **named: Any) -> Any:
        passes.append(model)
        return usual(model, *rest, **named)

    monkeypatch.setattr(rollout, "response_logprobs", counting)
    found, noted = [], []
    for old_logprobs in ("recomputed", "sampled"):
        passes.clear()
        learner = tiny.learner(old_logprobs=old_logprobs, score_position=score_position, reference_seed=3)
        found.append(learner.step())
        assert learner.last_rollout is not None
        noted.append((learner.last_rollout.logprobs, learner.last_rollout.entropy))
        assert any(model is learner.networks.reference for model in passes)
        assert any(model is learner.networks.policy for model in passes) == (old_logprobs == "recomputed")
    assert found[0] == pytest.approx(found[1], rel=1e-4, abs=1e-5)
    for recomputed, sampled in zip(*noted, strict=True):
        torch.testing.assert_close(sampled, recomputed, atol=1e-5, rtol=0)
        assert not torch.equal(sampled, recomputed), "these come from another forward pass"


@pytest.mark.parametrize("score_position", ["on_eos", "after_eos", "last_position"])
@pytest.mark.parametrize("inner_epochs", [1, 2])
def test_every_placement_of_the_score_trains(score_position: str, inner_epochs: int) -> None:
    learner = tiny.learner(
        score_position=score_position, inner_epochs=inner_epochs, whitening_variance="unbiased", reference_seed=3
    )
    start = weights(learner)
    metrics = [learner.step() for _ in range(2)][-1]
    assert not same(start, weights(learner))
    assert all(math.isfinite(value) for value in metrics.values())
    if score_position == "last_position":
        assert metrics["response/length"] == 6.0


def test_whitening_knobs_are_read() -> None:
    def trained(**changes: Any) -> list[torch.Tensor]:
        learner = tiny.learner(**changes)
        learner.step()
        return weights(learner)

    plain = trained()
    for change in ({"whiten_rewards": True}, {"whiten_advantages": False}, {"whitening_variance": "unbiased"}):
        assert not same(plain, trained(**change))


def test_score_improves_on_an_easy_reward() -> None:
    """With a reward that any policy can raise, a few iterations raise it."""
    changes: dict[str, Any] = {"gamma": 0.0, "episodes_per_iteration": 64, "minibatch_size": 16, "warmup_iterations": 0}
    adam = {**tiny.settings()["policy_adam"], "learning_rate": 0.02}
    learner = tiny.learner(policy_adam=adam, missing_eos="none", episodes=640, **changes)
    scores = [learner.step()["objective/score"] for _ in range(8)]
    assert sum(scores[-2:]) / 2 > scores[0] + 0.3


def test_samples_show_the_latest_iteration() -> None:
    learner = tiny.learner()
    assert learner.samples(3) == []
    learner.step()
    samples = learner.samples(3)
    assert len(samples) == 3 and learner.last_rollout is not None
    assert [sample.score for sample in samples] == learner.last_rollout.score[:3].tolist()
    assert all("<eos>" not in sample.response for sample in samples)


@pytest.mark.point(38)
def test_debug_notices_rewards_that_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.ppo import learner as module

    honest = module.per_token_rewards
    monkeypatch.setattr(module, "per_token_rewards", lambda *args, **kwargs: honest(*args, **kwargs) + 0.01)
    with pytest.raises(AssertionError, match="rewards of a response miss"):
        tiny.learner().step()


@pytest.mark.point(52)
def test_shared_parameters_are_refused() -> None:
    networks = tiny.networks()
    rest = (tiny.tokenizer(), tiny.prompts(), tiny.documents(), tiny.config(), tiny.RUNTIME)
    with pytest.raises(ModelError, match="policy shares parameters with reference"):
        PPOLearner(networks._replace(reference=networks.policy), *rest)
    with pytest.raises(ModelError, match="value_model shares parameters with reward_model"):
        PPOLearner(networks._replace(value_model=copy.copy(networks.reward_model)), *rest)


def test_impossible_lengths_and_missing_prompts_are_refused() -> None:
    with pytest.raises(ModelError, match=r"prompt_tokens \(30\) \+ response_tokens \(6\) = 36 exceed .* 32 tokens"):
        tiny.learner(prompt_tokens=30)
    with pytest.raises(DataError, match="found no RL prompts"):
        PPOLearner(tiny.networks(), tiny.tokenizer(), [], [], tiny.config(gamma=0.0), tiny.RUNTIME)


def test_networks_are_named() -> None:
    assert Networks._fields == ("policy", "reference", "reward_model", "value_model")
