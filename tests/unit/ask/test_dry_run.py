"""The arithmetic of a run: published counts as literals, parameters by hand, memory against what networks really hold."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import DynamicCache, LlamaConfig, PreTrainedModel

from flows.ask.arithmetic.counts import fine_tuning, optimisation, ranking, training_rows
from flows.ask.arithmetic.memory import (
    HEAP,
    StageMemory,
    cache_bytes,
    network_memory,
    ppo_networks,
    stage_memory,
    training_bytes,
)
from flows.ask.arithmetic.networks import scratch_config, shape_of
from flows.ask.arithmetic.shapes import Shape, Shapes, scratch_shape, shapes_of
from flows.ask.doctor.patient import Patient
from flows.ask.dry_run import page
from flows.config import RLHFConfig, load
from tasks.engine.errors import ConfigError, ModelError
from tasks.language.adapters import trainable_copy
from tasks.language.batches import pad_batch
from tasks.language.families import hidden_states, trunk_of
from tasks.language.models import ScalarModel, new_causal_lm, save_policy
from tasks.ppo.learner import PPOLearner
from tasks.ppo.task import load_networks
from tests.benchmarks import memory
from tests.unit import tiny
from tests.unit.language.test_adapters import LORA, draws
from tests.unit.ppo import tiny as tiny_ppo
from tests.unit.tiny_folder import data_folder, model_folder

GPT3 = {"1_3b": (24, 2048), "6b": (32, 4096), "175b": (96, 12288)}
"""Layers and width: GPT-3, table 2.1."""


def paper(size: str, *overrides: str) -> RLHFConfig:
    return load([f"experiment=instructgpt_{size}", *overrides])


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_the_published_counts_are_printed() -> None:
    text = plain(page(paper("1_3b")))
    for line in (
        "sft 12,725 demonstrations -> 6,368 steps of 32, 16 epochs",
        "33,207 rankings -> 519 steps of 64 prompts, 1 epoch; at most 2,304 pairs a step, 199,242 to 1,195,452 in all",
        "256,000 episodes = 500 iterations of 512 x 8 minibatches of 64 = 4,000 optimizer steps",
        "8.2 passes over 31,144 prompts",
        "2,048,000 pretraining examples (8 per episode) of 2,048 tokens, gradients times 27.8",
    ):
        assert line in text, f"missing: {line}"


@pytest.mark.parametrize(
    "overrides", [[], ["model=scratch"], ["model.architecture.tie_embeddings=false", "model.architecture.heads=8"]]
)
def test_a_model_from_scratch_is_counted_as_transformers_builds_it(overrides: list[str]) -> None:
    model = load(overrides).model
    counted = scratch_shape(model)
    assert counted == shape_of(scratch_config(model), counted.origin)


def test_all_rounds_are_counted() -> None:
    config = load(
        ["scale=miniature", "rounds=3", "train_dpo=true", "dry_run.comparisons=100", "reward_model.batch_size=8"]
    )
    text = plain(page(config))
    for line in (
        "100 rankings -> 13 steps of 8",
        "3 rounds, each on all rankings so far: 13 + 25 + 38 = 76 steps",
        "dpo 300 rankings -> 38 steps of 8 prompts",
        "64 episodes = 2 iterations of 32 x 2 minibatches of 16 = 4 optimizer steps",
        "3 rounds: 192 episodes, 12 optimizer steps",
    ):
        assert line in text, f"missing: {line}"
    assert "rounds" not in plain(page(load(["scale=miniature"])))


@pytest.mark.parametrize(
    ("size", "sft_rate", "sft_batch", "init_rate", "value_rate", "sft_steps"),
    [
        ("1_3b", 9.65e-6, 32, 5.0e-6, 9e-6, 6368),
        ("6b", 9.65e-6, 32, 1.04e-5, 9e-6, 6368),
        ("175b", 5.03e-6, 8, 2.45e-6, 5e-6, 25456),
    ],
)
def test_the_recipes_hold_the_published_values(
    size: str, sft_rate: float, sft_batch: int, init_rate: float, value_rate: float, sft_steps: int
) -> None:
    config = paper(size)
    assert (config.sft.adam.learning_rate, config.sft.batch_size, config.sft.epochs) == (sft_rate, sft_batch, 16)
    assert (config.sft.residual_dropout, config.sft.final_lr_fraction) == (0.2, 0.1)
    init = config.ppo_init
    assert (init.adam.learning_rate, init.batch_size, init.epochs) == (init_rate, sft_batch, 2)
    assert init.pretraining_fraction == 0.1
    judge = config.reward_model
    assert (judge.adam.learning_rate, judge.batch_size, judge.epochs) == (9e-6, 64, 1)
    assert config.ppo.value_adam.learning_rate == value_rate
    for adam in (config.sft.adam, init.adam, judge.adam, config.ppo.policy_adam, config.ppo.value_adam):
        assert (adam.beta1, adam.beta2) == (0.9, 0.95)
    assert (config.ppo.beta, config.ppo.gamma, config.ppo.ema_decay, config.ppo.policy_clip) == (0.02, 27.8, 0.992, 0.2)
    assert 2.55e-6 <= config.ppo.policy_adam.learning_rate <= 2.55e-5
    assert fine_tuning(config.sft, 12725).steps == sft_steps
    assert shapes_of(config).judge.layers == 32  # one 6B model for all


@pytest.mark.parametrize("size", list(GPT3))
def test_parameters_are_those_of_gpt_3(size: str) -> None:
    layers, width = GPT3[size]
    # per layer: 4 attention and 8 MLP matrices, their biases, two norms; then embeddings, positions, the last norm
    by_hand = layers * (12 * width**2 + 13 * width) + 50257 * width + 2048 * width + 2 * width
    found = shapes_of(paper(size, "reward_model.body=null")).policy
    assert found.parameters == by_hand
    assert by_hand == pytest.approx({"1_3b": 1.3e9, "6b": 6.7e9, "175b": 175e9}[size], rel=0.015)
    assert found.scalar_parameters == by_hand + width + 1  # the embedding is shared, so the trunk is everything


def test_a_model_from_scratch_is_counted_before_it_is_built() -> None:
    config = load(["scale=miniature", f"model.tokenizer.vocab_size={len(tiny.WORDS)}"])
    assert config.model.architecture is not None
    built = new_causal_lm(config.model.architecture, tiny.word_tokenizer(), config.model.context_tokens, 0)
    scalar = ScalarModel.from_policy(built, torch.Generator().manual_seed(0))
    found = shapes_of(config).policy
    assert found.parameters == sum(p.numel() for p in built.parameters())
    assert found.scalar_parameters == sum(p.numel() for p in scalar.parameters())


def test_a_model_folder_is_measured_by_its_config(tmp_path: Path) -> None:
    model = tiny.gpt2()
    model.config.save_pretrained(tmp_path)  # no weights
    found = shapes_of(paper("1_3b", f"model.name_or_path={tmp_path}")).policy
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert (found.layers, found.hidden, found.mlp_width, found.mlp_kept) == (2, 16, 64, 5)


def held(learner: Any) -> dict[str, int]:
    """Bytes of all parameters and optimizer moments, and of each optimizer's gradients as it steps."""
    parameters = [p for network in learner.networks for p in network.parameters()]
    gradients: dict[int, int] = {}

    def look(optimizer: torch.optim.Optimizer, *_: object) -> None:
        stepped = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        gradients.update({id(p): p.grad.nbytes for p in stepped})

    for descent in learner.optimizers:
        descent.optimizer.register_step_pre_hook(look)
    learner.step()
    moments = [
        value
        for descent in learner.optimizers
        for state in descent.optimizer.state.values()
        for name, value in state.items()
        if name != "step"
    ]
    return {
        "weights": sum(p.nbytes for p in parameters),
        "gradients": sum(gradients.values()),
        "adam": sum(m.nbytes for m in moments),
    }


def test_ppo_holds_what_the_arithmetic_says() -> None:
    learner = tiny_ppo.learner()
    networks = learner.networks
    policy, scalar = (sum(p.numel() for p in n.parameters()) for n in (networks.policy, networks.value_model))
    expected = [
        network_memory("policy", policy, trained=True, averaged=True),
        network_memory("reference", policy, trained=False),
        network_memory("reward model", scalar, trained=False),
        network_memory("value model", scalar, trained=True),
    ]
    found = held(learner)
    for kind in found:
        assert found[kind] == sum(getattr(network, kind) for network in expected), kind
    assert sum(average.nbytes for average in learner.ema.state_dict().values()) == expected[0].average
    assert [n._replace(parameters=0, weights=0, gradients=0, adam=0, average=0) for n in expected] == [
        n._replace(parameters=0, weights=0, gradients=0, adam=0, average=0) for n in ppo_networks(*unwatched())
    ]


def test_gradients_of_policy_and_value_model_are_never_there_at_once() -> None:
    learner = tiny_ppo.learner()
    networks = learner.networks
    steps: list[tuple[str, set[str]]] = []

    def look(name: str) -> Any:
        def found(*_: object) -> None:
            alive = {
                other
                for other in ("policy", "value_model")
                if any(p.grad is not None for p in getattr(networks, other).parameters())
            }
            steps.append((name, alive))

        return found

    for name, descent in zip(("policy", "value_model"), learner.optimizers, strict=True):
        descent.optimizer.register_step_pre_hook(look(name))
    learner.step()
    assert {name for name, _ in steps} == {"policy", "value_model"}
    assert all(alive == {name} for name, alive in steps)


def test_the_peak_of_ppo_by_hand() -> None:
    """Llamas from scratch on a processor: in PPO-ptx, two gradients of the policy lie beside a pass, and none of the value
    model."""
    # (4096 words + 6 layers of 4 and 3 matrices and 2 norms + the last norm) of width 384, and a head with its bias
    policy = 4096 * 384 + 6 * (4 * 384**2 + 3 * 384 * 1024 + 2 * 384) + 384
    scalar = policy + 384 + 1
    # weights, two moments, average; reference; reward model; weights, two moments; gradient and its copy
    kept = 4 * (4 * policy + policy + scalar + 3 * scalar + 2 * policy)
    # a pass of 1,024 tokens, in pieces below 32 MiB
    activations, logits = 1024 * 6 * (9 * 384 + 4 * 1024) * 4, 3 * 1024 * 4096 * 4
    _, *_, plain_ppo, ppo_ptx = memory.CASES
    assert memory.forecast(ppo_ptx) == pytest.approx(kept + 1.6 * (activations + logits), abs=2)
    found = ppo_of(ppo_ptx)
    assert found.state == 4 * (4 * policy + policy + scalar + 3 * scalar + scalar)  # the larger gradient of the two
    assert found.largest == "policy update"

    policy = 4096 * 640 + 3 * (4 * 640**2 + 3 * 640 * 1728 + 2 * 640) + 640
    scalar = policy + 640 + 1
    kept = 4 * (5 * policy + 4 * scalar + policy)
    # 8 rows of 256 tokens are one pass; logits of 32 MiB a piece leave no pages behind
    activations, logits = 2048 * 3 * (9 * 640 + 4 * 1728) * 4, 3 * 2048 * 4096 * 4
    assert memory.forecast(plain_ppo) == kept + activations + logits
    twice = plain_ppo._replace(overrides=(*plain_ppo.overrides, "ppo.minibatch_size=16"))
    assert memory.forecast(twice) == pytest.approx(kept + 1.6 * activations + logits, abs=2)


def test_scoring_in_half_precision_copies_the_layers_of_both_frozen_networks() -> None:
    """Where adapters are small and networks large, nothing that comes and goes is as large."""
    values = {"hidden_size": 4096, "intermediate_size": 8192, "num_hidden_layers": 8, "vocab_size": 64}
    large = shape_of(LlamaConfig(**values, num_attention_heads=32, tie_word_embeddings=True), "test")
    layers = 8 * (4 * 4096**2 + 3 * 4096 * 8192)

    def found(precision: str, *overrides: str) -> StageMemory:
        config, _ = unwatched("adapter=lora", *overrides)
        return stage_memory(config, Shapes(large, large), precision)[-1]

    working = found("bf16").working
    assert found("bf16").largest == "scoring" and found("fp32").largest != "scoring"
    assert working == pytest.approx(2 * 2 * layers, rel=0.02)
    assert found("bf16", "runtime.frozen_precision=bf16").largest != "scoring"


def ppo_of(case: memory.Case) -> StageMemory:
    config = load([*memory.SHARED, *case.overrides])
    return stage_memory(config, shapes_of(config), "fp32")[-1]


def unwatched(*overrides: str) -> tuple[RLHFConfig, Shapes]:
    config = load(["independent_reward_model=none", *overrides])
    return config, shapes_of(config)


def test_the_second_reward_model_is_counted_where_it_watches() -> None:
    config = paper("1_3b")
    shapes = shapes_of(config)
    assert [n.name for n in ppo_networks(config, shapes)][4:] == ["second RM"]
    for change in ("independent_reward_model=none", "ppo.sentinel.every=0"):
        assert len(ppo_networks(paper("1_3b", change), shapes)) == 4


def kept_for_backward(model: PreTrainedModel, tokens: int) -> int:
    """Bytes that a forward pass of ``tokens`` keeps, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = pad_batch([[5] * (tokens // 2)] * 2, [[], []], 0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        rows, columns = (batch.input_ids >= 0).nonzero(as_tuple=True)
        states = hidden_states(trunk_of(model), batch, batch.lengths, rows, columns)
    assert states.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_activations_are_estimated_within_a_tenth(family: str) -> None:
    wide: dict[str, Any] = {
        "llama": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "max_position_embeddings": 256},
        "gpt2": {"n_embd": 64, "n_layer": 4, "n_positions": 256},
    }
    model = tiny.FAMILIES[family](**wide[family])
    estimate = training_bytes(shape_of(model.config, "test"), 512, "fp32")
    assert estimate == pytest.approx(kept_for_backward(model, 512), rel=0.1)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("targets", ["all-linear", "some"])
def test_activations_over_a_frozen_base_are_estimated_within_a_sixth(family: str, targets: str) -> None:
    wide: dict[str, Any] = {
        "llama": {"hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 4, "max_position_embeddings": 256},
        "gpt2": {"n_embd": 64, "n_layer": 4, "n_positions": 256},
    }
    some = {"llama": ["q_proj", "v_proj", "up_proj", "down_proj"], "gpt2": ["c_attn", "c_proj"]}
    adapter = LORA.model_copy(update={"targets": targets if targets == "all-linear" else some[family]})
    model = trainable_copy(tiny.FAMILIES[family](**wide[family]), adapter, draws())
    estimate = training_bytes(shape_of(model.config, "test"), 512, "fp32", adapter)
    found = kept_for_backward(model, 512)
    assert estimate == pytest.approx(found, rel=1 / 6) if targets == "all-linear" else estimate >= 0.9 * found


def test_adapters_are_counted_exactly() -> None:
    for model in (tiny.llama(), tiny.gpt2()):
        shape = shape_of(model.config, "test")
        for targets in ("all-linear", [shape.linear[0].name]):
            adapter = LORA.model_copy(update={"targets": targets})
            adapted = trainable_copy(model, adapter, draws())
            trained = [p.numel() for p in adapted.parameters() if p.requires_grad]
            assert (shape.adapter_parameters(adapter), 2 * len(shape.adapted(adapter))) == (sum(trained), len(trained))


@pytest.mark.parametrize("base", ["full", "4bit"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ppo_with_adapters_holds_what_the_arithmetic_says(precision: str, base: str, tmp_path: Path) -> None:
    save_policy(tiny_ppo.policy(), tiny_ppo.tokenizer(), tmp_path / "policy")
    ScalarModel.from_policy(tiny_ppo.policy(1), draws()).save(tmp_path / "model")
    knobs, runtime = (
        tiny_ppo.config(adapter=LORA.model_dump() | {"base": base}),
        tiny_ppo.runtime(frozen_precision=precision),
    )
    networks = load_networks(
        tmp_path / "policy", tmp_path / "policy", [ScalarModel.load(tmp_path / "model")], knobs, runtime
    )
    learner = PPOLearner(networks, tiny_ppo.tokenizer(), tiny_ppo.prompts(), tiny_ppo.documents(), knobs, runtime)
    storages = {p.data_ptr(): p.nbytes for network in networks for p in network.parameters()}  # type: ignore[union-attr]
    shape = shape_of(networks.reference.config, "test")
    config = load(["independent_reward_model=none", "adapter=lora"])
    config = config.model_copy(update={"ppo": knobs, "runtime": runtime})
    expected = ppo_networks(config, Shapes(shape, shape))
    rounded = 0 if precision == "fp32" else 2 * (shape.hidden + 1)  # a reward model's head stays fp32
    assert sum(storages.values()) == sum(network.weights for network in expected) + rounded
    moved = held(learner)
    for kind in ("gradients", "adam"):
        assert moved[kind] == sum(getattr(network, kind) for network in expected), kind
    assert sum(average.nbytes for average in learner.ema.average.values()) == expected[0].average


def test_a_base_in_four_bits_is_counted_in_every_stage() -> None:
    """6.7B: 32 layers of 12 x 4096 x 4096 weights at 4.5 bits instead of 32."""
    own = ["runtime=gpu", "reward_model.body=null", "ppo.rollout_engine=own", "train_dpo=true", "adapter=lora"]
    full, thin = (
        stage_memory(c, shapes_of(c), "fp32") for c in (paper("6b", *own), paper("6b", *own, "adapter.base=4bit"))
    )
    linear = 32 * 12 * 4096 * 4096
    saved = {one.stage: one.state - other.state for one, other in zip(full, thin, strict=True)}
    once, twice = linear * (4 - 9 / 16), 2 * linear * (4 - 9 / 16)
    assert saved == {
        "sft": once,
        "reward_model": once,
        "dpo": once,
        "evaluation": 0,
        "ppo": twice,
    }  # the merged policy is measured


def test_the_page_shows_what_adapters_save() -> None:
    own = ["runtime.generation_batch=8", "reward_model.body=null", "ppo.rollout_engine=own"]
    text = plain(page(paper("1_3b", *own, "adapter=lora")))
    # 24 layers of GPT-2's four matrices, (2048, 6144), (2048, 2048), (2048, 8192), (8192, 2048), at rank 16
    assert f"adapter {24 * 16 * (8192 + 4096 + 10240 + 10240):,} parameters: rank 16 beside 96 linear layers" in text
    assert "bytes per parameter" not in text
    full, thin = (
        stage_memory(c, shapes_of(c), "fp32") for c in (paper("1_3b", *own), paper("1_3b", *own, "adapter=lora"))
    )
    trained = [(a, b) for a, b in zip(full, thin, strict=True) if a.stage != "evaluation"]  # of the merged policy
    assert len(trained) == 3 and all(a.state > 2 * b.state for a, b in trained)
    again = paper("1_3b", *own, "runtime.gradient_checkpointing=true", "runtime.tokens_per_microbatch=16384")
    kept, all_kept = (stage_memory(c, shapes_of(c), "fp32")[1].working for c in (again, paper("1_3b", *own)))
    assert kept < all_kept / 4


def test_the_cache_is_counted_exactly() -> None:
    model = tiny.llama(num_attention_heads=4, num_key_value_heads=2)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(torch.full((3, 10), 5), past_key_values=cache, use_cache=True)
    nbytes = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert cache_bytes(shape_of(model.config, "test"), 30, "fp32") == nbytes


def test_precision_changes_what_comes_and_goes_not_what_stays() -> None:
    config = paper("1_3b")
    shapes = shapes_of(config)
    for full, half in zip(stage_memory(config, shapes, "fp32"), stage_memory(config, shapes, "bf16"), strict=True):
        assert full.state == half.state and full.working >= half.working
    by_hand = 4 * 4 * 1315723264  # fp32: weights, gradients, two moments
    assert stage_memory(config, shapes, "fp32")[0].state == by_hand


def test_measuring_takes_a_policy_what_it_samples_or_one_network_beside_it() -> None:
    def of(*overrides: str) -> StageMemory:
        config = paper("1_3b", "runtime=gpu", *overrides)
        return next(s for s in stage_memory(config, shapes_of(config), "fp32") if s.stage == "evaluation")

    policy, judge = 4 * 1315723264, shapes_of(paper("1_3b")).judge.scalar_parameters
    few, more = of("runtime.generation_batch=64"), of("runtime.generation_batch=128")
    assert few.state == policy and few.largest == "sampling"
    # 64 more rows: keys and values of 24 layers at full length, and one layer's vectors over half as many prompt tokens.
    cache, layer = 2 * 4 * 24 * 2048 * (1024 + 1024), 4 * (9 * 2048 + 5 * 8192) * 512
    assert more.working - few.working == 64 * (cache + layer)
    one = of("runtime.generation_batch=1")
    assert (one.largest, one.working) == ("a reward model", 4 * judge)
    assert of("runtime.generation_batch=1", "reward_ensemble=3").state == policy + 3 * 4 * judge


def test_a_reward_model_in_a_folder_takes_memory_in_ppo_and_in_measuring(tmp_path: Path) -> None:
    save_file({"score.weight": torch.zeros(1, 64), "model.embed": torch.zeros(999, 64)}, tmp_path / "model.safetensors")
    given = (
        f"{{name: safe, kind: reward_model, folder: {tmp_path}, prompt_layout: null, spread_penalty: 0.0, weight: 1.0}}"
    )
    own = "{name: own, kind: reward_model, folder: null, prompt_layout: null, spread_penalty: 0.0, weight: 1.0}"

    def states(*parts: str) -> dict[str, int]:
        config = paper("1_3b", f"ppo.rewards.parts=[{','.join(parts)}]")
        return {stage.stage: stage.state for stage in stage_memory(config, shapes_of(config), "fp32")}

    length = "{name: length, kind: function, function: 'tests.unit.rewards.length:score', weight: 0.1}"
    alone, both = states(own, length), states(own, length, given)
    assert {name: both[name] - alone[name] for name in ("ppo", "evaluation", "sft")} == {
        "ppo": 4 * 1000 * 64,
        "evaluation": 4 * 1000 * 64,
        "sft": 0,
    }
    networks = plain(page(paper("1_3b", f"ppo.rewards.parts=[{own},{given}]")))
    assert " safe 0.0 - - - 0.0 " in networks


def test_what_fits_is_said() -> None:
    text = plain(page(paper("1_3b", "runtime.generation_batch=8", "reward_model.body=null")))
    assert re.search(r"sft 19.6 .* fits ", text)
    # policy 16 with its average, reference 4, two reward models 8, value model 12, and one gradient of 4 at a time
    assert "44 bytes per parameter when all 5 networks have one size: at most 2.0 billion" in text
    # 24 bytes of each of the policy's 174,604,259,328 parameters, whose gradient is the larger, 20 of the judge's 6,658,408,449
    assert re.search(r"ppo 4,026.7 .* the state alone is 50.3 cards", plain(page(paper("175b"))))
    assert re.search(r"ppo .* fits", plain(page(load([]))))


def test_sandbox_counts_follow_its_configuration() -> None:
    config = load(["data_prep.sandbox.demonstrations=500", "comparisons.max_prompts=90", "ppo.gamma=0"])
    rows = training_rows(config)
    assert rows.demonstrations is not None and rows.comparisons is not None
    assert rows.demonstrations.number == 470 and rows.comparisons.number == 90  # 6 % of the owners are for validation
    assert optimisation(config).pretraining_rows == 0
    assert "no pretraining examples: gamma is 0" in page(config)


def test_shuffled_pairs_are_counted_one_by_one() -> None:
    config = load(["reward_model.batch_element=pair", "reward_model.batch_size=10", "comparisons.completions_max=5"])
    assert ranking(config, 7) == (7, 10, 7 * 6, 7 * 10)


def test_own_data_is_counted_record_by_record(tmp_path: Path) -> None:
    shots = {"instruction": "do", "shots": [{"query": f"q{i}", "response": "r"} for i in range(3)]}
    (tmp_path / "demonstrations.jsonl").write_text(
        json.dumps({"prompt": "a", "response": "b"}) + "\n" + json.dumps(shots) + "\n"
    )
    (tmp_path / "rl_prompts.jsonl").write_text(json.dumps({"prompt": "a"}) + "\n")
    config = load(["experiment=own_data_from_scratch", f"data_prep.folder={tmp_path}", "data_prep.test_fraction=0.15"])
    rows = training_rows(config)
    assert rows.demonstrations is not None and rows.demonstrations.number == 3  # four records, three quarters of them
    assert rows.comparisons is None
    assert "reward_model steps unknown: no data to count yet; declare dry_run.comparisons" in plain(page(config))


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (
            ["experiment=own_data", "data_prep.folder=x", "model.name_or_path=a/b"],
            ModelError,
            "found no a/b/config.json",
        ),
        (["experiment=instructgpt_1_3b", "dry_run.policy.model_type=gtp2"], ConfigError, "'gtp2' is not known"),
        (["experiment=instructgpt_1_3b", "~dry_run.policy.model_type"], ConfigError, "found no model_type"),
        (["experiment=instructgpt_1_3b", "dry_run.reward_model.model_type=t5"], ModelError, "no causal language model"),
    ],
)
def test_unknown_shapes_are_refused(overrides: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        page(load(overrides))


def test_shapes_without_groups_cache_every_head() -> None:
    found = shape_of(tiny.llama().config, "here")
    assert isinstance(found, Shape) and (found.key_value_width, found.mlp_kept, found.mlp_width) == (16, 4, 24)


def test_advantages_of_whole_responses_take_no_memory_for_a_value_model() -> None:
    changes = ["ppo.advantage_estimator=leave_one_out", "ppo.responses_per_prompt=4"]
    names = [[network.name for network in ppo_networks(*unwatched(*changed))] for changed in ((), changes)]
    assert [name for name in names[0] if name not in names[1]] == ["value model"]


@pytest.mark.parametrize("size", ["1_3b", "6b", "175b"])
def test_the_paper_s_experiments_run_the_paper_s_evaluation(size: str) -> None:
    """Appendix D: the suite, few-shot, in 2k tokens; Perspective on 5,000 bait prompts with three prompt types."""
    config = paper(size)
    evaluation = config.evaluation
    assert (evaluation.suite.tasks, evaluation.suite.shots) == (["instructgpt"], "few")
    assert evaluation.suite.folder is not None and evaluation.suite.limit is None
    assert evaluation.context_tokens + evaluation.benchmark_answer_tokens == config.model.context_tokens == 2048
    assert (evaluation.test_prompts, evaluation.toxicity_prompts) == (3196, 5000)
    assert evaluation.toxicity.scorer == "perspective"
    assert evaluation.toxicity.layouts == ["basic", "respectful", "biased"]
    assert (evaluation.temperature, evaluation.benchmark_normalisation) == (1.0, "per_token")


def test_a_processor_keeps_pages_that_activations_gave_back() -> None:
    """The reward model of the embedded world, which makes no logits: 3 layers of width 96, MLP 256, in fp32."""
    for runtime, tokens, heap in (("cpu", 2048, 1.6), ("gpu", 16384, 1.0)):
        config = load([f"runtime={runtime}"])
        found = next(s for s in stage_memory(config, shapes_of(config), "fp32") if s.stage == "reward_model")
        assert found.working == int(heap * tokens * 3 * (9 * 96 + 4 * 256) * 4)


def test_given_rankings_are_read_together_as_many_as_they_are(tmp_path: Path) -> None:
    """Two responses a prompt, not the nine that are drawn where responses are drawn."""
    model, data = model_folder(tmp_path / "model"), data_folder(tmp_path / "data")
    shown = ["experiment=own_data", "scale=miniature", f"data_prep.folder={data}", f"model.name_or_path={model}"]
    config = load([*shown, "comparisons.completions_max=9", "runtime.tokens_per_microbatch=64"])
    row, shapes = config.data_prep.prompt_tokens + config.data_prep.response_tokens, shapes_of(config)
    working = {
        most: stage_memory(config, shapes, "fp32", most)[1].working
        // training_bytes(shapes.judge, row, "fp32", heap=HEAP)
        for most in (3, None)
    }
    assert working == {3: 3, None: 9}
    table = {
        line.split()[0]: line.split()[2] for line in page(config).splitlines() if line.startswith("  reward_model  ")
    }
    expected = stage_memory(config, shapes, "fp32", 3)[1].peak / 2**20
    assert float(table["reward_model"]) == pytest.approx(expected, abs=0.06)
    assert (
        next(s for s in Patient(config).stage_memory if s.stage == "reward_model").working
        == stage_memory(config, shapes, "fp32", 3)[1].working
    )
    sampled = load(["scale=miniature"])
    assert stage_memory(sampled, shapes_of(sampled), "fp32", 2) == stage_memory(sampled, shapes_of(sampled), "fp32")
