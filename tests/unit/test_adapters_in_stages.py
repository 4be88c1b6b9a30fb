"""Stages that train adapters: who shares what, what a checkpoint holds, and where the first KL is measured from."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tasks.dpo.config import DPOConfig
from tasks.dpo.train import DPOLearner
from tasks.engine.errors import ModelError
from tasks.language.adapters import adapted_layers, attach, trainable_copy
from tasks.language.bases import load_base
from tasks.language.four_bit import four_bit_layers
from tasks.language.models import ScalarModel, load_policy, save_policy
from tasks.ppo.learner import PPOLearner
from tasks.ppo.task import load_networks
from tasks.reward_model.body import model_to_train
from tasks.reward_model.config import RewardModelConfig
from tasks.reward_model.train import RewardLearner
from tasks.sft.config import SFTConfig
from tasks.sft.train import SFTLearner
from tests.unit import tiny_models as tiny
from tests.unit.dpo.test_train import SMALL, comparisons
from tests.unit.language.test_adapters import LORA, draws, learn, logits
from tests.unit.ppo import tiny as tiny_ppo

ADAPTER = LORA.model_dump()


def weights_of(*networks: nn.Module) -> dict[int, int]:
    """Place -> bytes of every storage that parameters of these networks are in."""
    storages = [p.untyped_storage() for network in networks for p in network.parameters()]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def trained(network: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters() if p.requires_grad]


def frozen(network: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters() if not p.requires_grad]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) > 0 and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def carried(state: dict[str, Any]) -> Any:
    """Through the file of a checkpoint."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """PPO-init as a LoRA SFT leaves it, merged, and a reward model."""
    start = tiny_ppo.policy()
    attach(start, LORA, draws(4))
    save_policy(learn(start, 0.1), tiny.tokenizer(), tmp_path / "policy")
    ScalarModel.from_policy(tiny_ppo.policy(1), draws(2)).save(tmp_path / "model")
    yield tmp_path / "policy", tmp_path / "model"


def ppo(
    folders: tuple[Path, Path], *, adapter: Any = ADAPTER, limits: dict[str, Any] | None = None, **changes: Any
) -> PPOLearner:
    config = tiny_ppo.config(adapter=adapter, **changes)
    runtime = tiny_ppo.runtime(**(limits or {}))
    networks = load_networks(folders[0], folders[0], [ScalarModel.load(folders[1])], config, runtime)
    return PPOLearner(networks, tiny.tokenizer(), tiny_ppo.prompts(), tiny_ppo.documents(), config, runtime)


def test_ppo_has_two_trunks_in_memory_instead_of_four(folders: tuple[Path, Path]) -> None:
    policy, judge = (
        sum(weights_of(network).values()) for network in (load_policy(folders[0], "cpu"), ScalarModel.load(folders[1]))
    )
    full = ppo(folders, adapter=None).networks
    assert sum(weights_of(*full.present).values()) == 2 * (policy + judge)
    shared = ppo(folders).networks
    own = [p for network in (shared.policy, shared.value_model) for p in network.parameters() if p.requires_grad]  # type: ignore[union-attr]
    assert sum(weights_of(*shared.present).values()) == policy + judge + sum(p.nbytes for p in own)
    assert sum(p.nbytes for p in own) < 0.7 * (policy + judge)  # rank 3 of a width of 16
    assert weights_of(shared.reference).keys() <= weights_of(shared.policy).keys()
    assert weights_of(shared.reward_model.backbone).keys() <= weights_of(shared.value_model).keys()  # type: ignore[arg-type]
    half = ppo(folders, limits={"frozen_precision": "bf16"}).networks
    head = sum(weights_of(shared.reward_model.head).values())
    assert sum(weights_of(*half.present).values()) == (policy + judge + head) // 2 + sum(p.nbytes for p in own)


def test_the_first_kl_after_a_lora_sft_is_exactly_zero_and_then_the_policy_moves(folders: tuple[Path, Path]) -> None:
    learner = ppo(folders, minibatch_size=16)
    before = [frozen(network) for network in (learner.networks.policy, learner.networks.value_model)]  # type: ignore[arg-type]
    start = [trained(network) for network in (learner.networks.policy, learner.networks.value_model)]  # type: ignore[arg-type]
    first = learner.step()
    assert first["objective/kl"] == 0.0
    assert (first["ratio/mean"], first["ratio/max"], first["ratio/var"]) == (1.0, 1.0, 0.0)
    assert first["policy/grad_norm"] > 0 and first["value/grad_norm"] > 0 and first["ptx/grad_norm"] > 0
    assert learner.step()["objective/kl"] != 0.0
    for network, base, factors in zip(
        (learner.networks.policy, learner.networks.value_model), before, start, strict=True
    ):
        assert same(frozen(network), base)  # type: ignore[arg-type]
        assert not any(torch.equal(a, b) for a, b in zip(trained(network), factors, strict=True))  # type: ignore[arg-type]
    assert same(frozen(learner.networks.policy), list(learner.networks.reference.parameters()))


def test_a_base_in_four_bits_is_both_start_and_reference(folders: tuple[Path, Path]) -> None:
    learner = ppo(folders, adapter=ADAPTER | {"base": "4bit"}, minibatch_size=16)
    policy, value = learner.networks.policy, learner.networks.value_model
    assert len(four_bit_layers(policy)) == len(four_bit_layers(learner.networks.reference)) == 7
    assert weights_of(learner.networks.reference).keys() <= weights_of(policy).keys()
    assert weights_of(learner.networks.reward_model.backbone).keys() <= weights_of(value).keys()  # type: ignore[arg-type]
    before, factors = (
        [frozen(network) for network in (policy, value)],
        [trained(network) for network in (policy, value)],
    )  # type: ignore[arg-type]
    first = learner.step()
    assert first["objective/kl"] == 0.0
    assert (first["ratio/mean"], first["ratio/max"], first["ratio/var"]) == (1.0, 1.0, 0.0)
    assert learner.step()["objective/kl"] != 0.0
    for network, base, start in zip((policy, value), before, factors, strict=True):
        assert same(frozen(network), base)  # type: ignore[arg-type]
        assert not any(torch.equal(a, b) for a, b in zip(trained(network), start, strict=True))  # type: ignore[arg-type]
    state = learner.state_dict()
    again = ppo(folders, adapter=ADAPTER | {"base": "4bit"}, minibatch_size=16)
    again.load_state_dict(carried(state))
    assert again.step()["objective/kl"] == learner.step()["objective/kl"]


@pytest.mark.parametrize("stage", ["sft", "reward_model", "dpo"])
def test_every_stage_trains_beside_a_base_in_four_bits(stage: str, tmp_path: Path) -> None:
    save_policy(tiny.policy(2), tiny.tokenizer(), tmp_path / "policy")
    adapter = ADAPTER | {"base": "4bit"}
    if stage == "sft":
        config = SFTConfig.model_validate(
            tiny.settings("sft", epochs=1, batch_size=4, prompt_tokens=12, response_tokens=10, adapter=adapter)
        )
        model = attach(load_base(tmp_path / "policy", "cpu", config.adapter), config.adapter, draws())  # type: ignore[arg-type]
        learner: Any = SFTLearner(model, tiny.demonstrations(10), [], tiny.tokenizer(), config, tiny.runtime())
    elif stage == "dpo":
        knobs = DPOConfig.model_validate(tiny.settings("dpo", **SMALL, adapter=adapter))
        reference = load_base(tmp_path / "policy", "cpu", knobs.adapter)
        model = trainable_copy(reference, knobs.adapter, draws())
        learner = DPOLearner(model, reference, comparisons(), tiny.tokenizer(), knobs, tiny.runtime())
    else:
        judged = RewardModelConfig.model_validate(tiny.settings("reward_model", **SMALL, adapter=adapter))
        model = model_to_train(judged, tmp_path / "policy", tiny.tokenizer(), tiny.runtime())  # type: ignore[assignment]
        learner = RewardLearner(model, comparisons(), tiny.tokenizer(), judged, tiny.runtime())  # type: ignore[arg-type]
    base, start = frozen(model), trained(model)
    first = learner.step()
    assert stage != "dpo" or first["train/margin"] == 0.0
    learner.step()
    assert len(four_bit_layers(model)) == 14 and same(frozen(model), base)
    assert not any(torch.equal(a, b) for a, b in zip(trained(model)[:28], start[:28], strict=True))


def test_a_later_round_starts_elsewhere_than_its_reference(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Its KL is measured to PPO-init all the same, and is not 0 at the start."""
    save_policy(tiny_ppo.policy(3), tiny.tokenizer(), tmp_path / "start")
    config = tiny_ppo.config(adapter=ADAPTER)
    networks = load_networks(tmp_path / "start", folders[0], [ScalarModel.load(folders[1])], config, tiny_ppo.RUNTIME)
    assert torch.equal(logits(networks.policy), logits(tiny_ppo.policy(3)))
    assert torch.equal(logits(networks.reference), logits(load_policy(folders[0], "cpu")))
    assert not weights_of(networks.policy).keys() & weights_of(networks.reference).keys()
    learner = PPOLearner(networks, tiny.tokenizer(), tiny_ppo.prompts(), tiny_ppo.documents(), config, tiny_ppo.RUNTIME)
    assert learner.step()["objective/kl"] != 0.0


def test_learning_rates_are_raised(folders: tuple[Path, Path]) -> None:
    full, thin = (ppo(folders, adapter=adapter, warmup_iterations=0) for adapter in (None, ADAPTER))
    assert thin.step()["policy/learning_rate"] == pytest.approx(10 * full.step()["policy/learning_rate"])
    for usual, raised in zip(full.optimizers, thin.optimizers, strict=True):
        assert usual is not None and raised is not None
        before, after = (descent.optimizer.param_groups[0]["lr"] for descent in (usual, raised))
        assert after == pytest.approx(10 * before)
    fine_tuned = [sft(adapter=adapter).step()["train/learning_rate"] for adapter in (None, ADAPTER)]
    assert fine_tuned[1] == pytest.approx(10 * fine_tuned[0])


@pytest.mark.parametrize("limits", [{}, {"frozen_precision": "bf16"}])
def test_ppo_resumes_bit_for_bit_from_what_is_trained(folders: tuple[Path, Path], limits: dict[str, Any]) -> None:
    straight, stopped, fresh = (ppo(folders, limits=limits) for _ in range(3))
    expected = [straight.step() for _ in range(4)]
    found = [stopped.step() for _ in range(2)]
    state = stopped.state_dict()
    assert all("lora_" in name for name in (*state["policy"], *state["ema"]))
    assert {name for name in state["value_model"] if "lora_" not in name} == {"head.weight", "head.bias", "score_bias"}
    fresh.load_state_dict(carried(state))
    assert found + [fresh.step() for _ in range(2)] == expected
    assert same(trained(straight.final_policy()), trained(fresh.final_policy()))


def test_what_ppo_ships_is_a_plain_model_with_the_averaged_adapter(folders: tuple[Path, Path], tmp_path: Path) -> None:
    learner = ppo(folders, ema_decay=0.5)
    for _ in range(2):
        learner.step()
    averaged = learner.final_policy()
    assert weights_of(learner.networks.reference).keys() <= weights_of(averaged).keys(), "the base is not copied"
    save_policy(averaged, tiny.tokenizer(), tmp_path / "shipped")
    shipped = load_policy(tmp_path / "shipped", "cpu")
    assert not adapted_layers(shipped)
    torch.testing.assert_close(logits(shipped), logits(averaged), rtol=0, atol=1e-5)
    assert (logits(averaged) - logits(learner.networks.policy)).abs().max() > 1e-6
    assert (logits(averaged) - logits(learner.networks.reference)).abs().max() > 1e-4


def test_what_is_trained_may_not_be_in_a_frozen_network(folders: tuple[Path, Path]) -> None:
    networks = ppo(folders).networks
    rest = (
        tiny.tokenizer(),
        tiny_ppo.prompts(),
        tiny_ppo.documents(),
        tiny_ppo.config(adapter=ADAPTER),
        tiny_ppo.RUNTIME,
    )
    PPOLearner(networks, *rest)
    with pytest.raises(ModelError, match="policy shares parameters with reference"):
        PPOLearner(networks._replace(reference=networks.policy), *rest)
    with pytest.raises(ModelError, match="value_model shares parameters with reward_model"):
        PPOLearner(networks._replace(value_model=networks.reward_model.requires_grad_(True)), *rest)


def test_layers_computed_again_change_no_gradient_of_ppo(folders: tuple[Path, Path]) -> None:
    gradients = []
    for recompute in (False, True):
        learner = ppo(folders, adapter=None, minibatch_size=16, limits={"gradient_checkpointing": recompute})
        seen: list[torch.Tensor] = []
        for descent in learner.optimizers:
            assert descent is not None
            descent.optimizer.register_step_pre_hook(
                lambda optimizer, *_, seen=seen: seen.extend(
                    p.grad.clone() for g in optimizer.param_groups for p in g["params"]
                )
            )
        learner.step()
        gradients.append(seen)
    for usual, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, usual, rtol=0, atol=1e-6)


def test_frozen_networks_in_half_precision_leave_trained_ones_in_full(folders: tuple[Path, Path]) -> None:
    learner = ppo(folders, adapter=None, limits={"frozen_precision": "bf16"})
    kinds = [{p.dtype for p in network.parameters()} for network in learner.networks.present]
    half, whole = torch.bfloat16, torch.float32
    assert kinds == [{whole}, {half}, {half, whole}, {whole}]  # a reward model's head is worth full precision
    assert abs(learner.step()["objective/kl"]) < 0.2
    group = ppo(
        folders,
        adapter=None,
        limits={"frozen_precision": "bf16"},
        advantage_estimator="leave_one_out",
        responses_per_prompt=2,
    )
    assert half in {p.dtype for p in group.networks.reward_model.parameters()}


def sft(**changes: Any) -> SFTLearner:
    config = SFTConfig.model_validate(
        tiny.settings("sft", epochs=2, batch_size=4, prompt_tokens=12, response_tokens=10, adapter=ADAPTER) | changes
    )
    model = attach(tiny.policy(), LORA, draws())
    return SFTLearner(
        model, tiny.demonstrations(10), [], tiny.tokenizer(), config, tiny.runtime(), valid=tiny.demonstrations(4)
    )


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_sft_trains_and_resumes(dropout: float) -> None:
    changes = {"adapter": ADAPTER | {"dropout": dropout}, "selection": "validation_loss"}
    straight, stopped, fresh = (sft(**changes) for _ in range(3))
    expected = [straight.step() for _ in range(straight.total_steps)]
    found = [stopped.step() for _ in range(4)]
    state = stopped.state_dict()
    assert all("lora_" in name for name in (*state["model"], *state["best_weights"]))
    fresh.load_state_dict(carried(state))
    found += [fresh.step() for _ in range(straight.total_steps - 4)]
    timed = "train/tokens_per_second"
    assert [row | {timed: 0.0} for row in found] == [row | {timed: 0.0} for row in expected]
    assert same(trained(straight.model), trained(fresh.model))
    assert same(frozen(straight.model), list(tiny.policy().parameters()))
    assert expected[-1]["valid/loss"] < expected[2]["valid/loss"]
    straight.load_selected()


def test_adapters_of_sft_drop_in_training_only() -> None:
    plain, dropping = sft(), sft(adapter=ADAPTER | {"dropout": 0.5})
    for one in (plain, dropping):
        learn(one.model)
    assert plain.validation_loss() == dropping.validation_loss()
    assert plain.step()["train/loss"] != dropping.step()["train/loss"]


def test_dpo_starts_where_its_reference_is(tmp_path: Path) -> None:
    config = DPOConfig.model_validate(tiny.settings("dpo", **SMALL, adapter=ADAPTER))
    reference = tiny.policy(2)
    untouched = [p.clone() for p in reference.parameters()]
    policy = trainable_copy(reference, LORA, draws())
    learner = DPOLearner(policy, reference, comparisons(), tiny.tokenizer(), config, tiny.runtime())
    first = learner.step()
    assert first["train/margin"] == 0.0 and first["train/loss"] == pytest.approx(0.693147, abs=1e-5)
    assert first["train/learning_rate"] == pytest.approx(10 * config.adam.learning_rate)
    learner.step()
    found = learner.measure(comparisons())
    assert found is not None and found.margin != 0.0
    assert same(list(reference.parameters()), untouched)
    assert weights_of(reference).keys() <= weights_of(policy).keys()
    assert all("lora_" in name for name in learner.state_dict()["policy"])


def test_a_reward_model_trains_its_head_and_its_adapter(tmp_path: Path) -> None:
    save_policy(tiny.policy(2), tiny.tokenizer(), tmp_path / "policy")
    config = RewardModelConfig.model_validate(tiny.settings("reward_model", **SMALL, adapter=ADAPTER))
    model = model_to_train(config, tmp_path / "policy", tiny.tokenizer(), tiny.runtime())
    base, start = frozen(model), trained(model)
    learner = RewardLearner(model, comparisons(), tiny.tokenizer(), config, tiny.runtime())
    rates = [learner.step()["train/learning_rate"] for _ in range(learner.total_steps)]
    assert rates[0] == pytest.approx(10 * config.adam.learning_rate)
    assert same(frozen(model), base)
    changed = [not torch.equal(a, b) for a, b in zip(trained(model), start, strict=True)]
    assert (
        len(changed) == 2 * 14 + 2 and sum(changed) >= 2 * 14 + 1
    )  # a difference of scores does not move the head's bias
    assert {name for name in learner.state_dict()["model"] if "lora_" not in name} == {
        "head.weight",
        "head.bias",
        "score_bias",
    }
    model.save(tmp_path / "model")
    scores = learner.score(comparisons())
    again = RewardLearner(ScalarModel.load(tmp_path / "model"), comparisons(), tiny.tokenizer(), config, tiny.runtime())
    for found, expected in zip(again.score(comparisons()), scores, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_the_base_of_a_reward_model_with_an_adapter_is_in_the_frozen_precision(tmp_path: Path) -> None:
    save_policy(tiny.policy(2), tiny.tokenizer(), tmp_path / "policy")
    config = RewardModelConfig.model_validate(tiny.settings("reward_model", **SMALL, adapter=ADAPTER))
    model = model_to_train(config, tmp_path / "policy", tiny.tokenizer(), tiny.runtime(frozen_precision="bf16"))
    kinds = {wanted: {p.dtype for p in model.parameters() if p.requires_grad == wanted} for wanted in (True, False)}
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}
