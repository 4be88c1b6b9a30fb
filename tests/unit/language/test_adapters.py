"""Adapters: they start as nothing, train alone, reach every reader of the model, and leave as plain weights."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from flows.ask.doctor.requirements import check_adapters
from flows.config import load
from flows.instructgpt import instructgpt
from tasks.engine.config import AdamConfig, AdapterConfig
from tasks.engine.errors import ConfigError, ModelError
from tasks.language.adapters import (
    adapted_layers,
    adapter_dropout,
    attach,
    load_trained_state,
    merged,
    save_adapter,
    snapshot,
    trainable_copy,
    trained_state,
)
from tasks.language.batches import pad_batch
from tasks.language.families import trunk_of
from tasks.language.generation import sample
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel, load_policy, save_policy
from tasks.language.optimization import Ema, make_adamw
from tests.unit.families import PACKED, PADDED, build
from tests.unit.tiny import EOS, PAD, gpt2, llama, word_tokenizer

LORA = AdapterConfig(rank=3, alpha=12, targets="all-linear", base="full", dropout=0.0, learning_rate_factor=10.0)
IDS = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]])
ADAM = AdamConfig(
    learning_rate=0.01,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-8,
    epsilon_placement="after_correction",
    weight_decay=0.0,
    max_grad_norm=1.0,
)


def draws(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def learn(model: Any, size: float = 0.3) -> Any:
    """As if the adapter had been trained: its second factor is 0 no more."""
    generator = draws(8)
    with torch.no_grad():
        for _, layer in sorted(adapted_layers(model).items()):
            weight = layer.lora_B["default"].weight
            weight.copy_(size * torch.randn(weight.shape, generator=generator))
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("family", [*PACKED, *PADDED])
def test_what_it_learnt_is_in_the_merged_weights_and_in_the_saved_adapter(family: str, tmp_path: Path) -> None:
    base = build(family)
    untouched = copy.deepcopy(base)
    model = trainable_copy(base, LORA, draws())
    assert torch.equal(logits(model), logits(base)), "a fresh adapter changes nothing, to the bit"
    learn(model, 0.1)
    adapted = logits(model)
    assert (adapted - logits(base)).abs().max() > 0.01
    assert torch.equal(logits(base), logits(untouched)), "the base is as it was"

    whole = merged(model)
    assert type(whole) is type(base)
    assert whole.state_dict().keys() == base.state_dict().keys()
    assert all(weight.dtype == torch.float32 for weight in whole.state_dict().values())
    torch.testing.assert_close(logits(whole), adapted, rtol=0, atol=1e-5)
    assert torch.equal(logits(model), adapted), "merging is a copy"

    save_adapter(model, tmp_path / "adapter")
    reloaded = peft.PeftModel.from_pretrained(untouched, tmp_path / "adapter")
    torch.testing.assert_close(logits(reloaded), adapted, rtol=0, atol=1e-6)


def test_the_saved_adapter_is_peft_s_own(tmp_path: Path) -> None:
    save_adapter(learn(trainable_copy(llama(), LORA, draws())), tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (3, 12, "LORA")
    assert settings["target_modules"] == sorted(settings["target_modules"])
    expected = {
        f"base_model.model.model.layers.{layer}.{part}.lora_{factor}.weight"
        for layer in range(2)
        for part in [f"self_attn.{name}_proj" for name in "qkvo"]
        + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
        for factor in "AB"
    }
    assert load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys() == expected


def test_equal_seeds_give_equal_bytes(tmp_path: Path) -> None:
    base, before = llama(), torch.random.get_rng_state()
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        save_adapter(trainable_copy(base, LORA, draws(seed)), tmp_path / name)
    one, same, other = (
        [path.read_bytes() for path in sorted((tmp_path / name).iterdir())] for name in ("one", "same", "other")
    )
    assert one == same and one[1] != other[1]
    assert torch.equal(torch.random.get_rng_state(), before), "the process's generator is nobody's"


def test_factors_are_drawn_as_peft_draws_them() -> None:
    """Kaiming-uniform with a = sqrt(5): uniform within 1 / sqrt(fan in)."""
    model = trainable_copy(llama(hidden_size=64, num_hidden_layers=4), LORA, draws())
    down = torch.cat(
        [layer.lora_A["default"].weight.flatten() for name, layer in adapted_layers(model).items() if "mlp.up" in name]
    )
    assert down.abs().max() <= 1 / 8 and abs(down.std().item() - 1 / 8 / 3**0.5) < 0.01 and abs(down.mean()) < 0.01


def test_the_base_is_in_memory_once() -> None:
    base = llama()
    model = trainable_copy(base, LORA, draws())
    owned = {p.data_ptr() for p in base.parameters()}
    assert {p.data_ptr() for p in model.parameters() if not p.requires_grad} == owned
    assert all(p.data_ptr() not in owned for p in model.parameters() if p.requires_grad)
    assert model.lm_head.weight is model.model.embed_tokens.weight is base.lm_head.weight
    alone = trainable_copy(base, None, draws())
    assert not {p.data_ptr() for p in alone.parameters()} & owned


@pytest.mark.parametrize("make", [llama, gpt2])
def test_training_changes_the_adapter_and_nothing_else(make: Any, tmp_path: Path) -> None:
    base = make()
    untouched = copy.deepcopy(base)
    model = trainable_copy(base, LORA, draws())
    save_adapter(model, tmp_path / "before")
    optimizer = make_adamw(model.parameters(), ADAM)
    batch = pad_batch([[3, 4], [5]], [[6, 7, 8], [9, 10]], PAD)
    for _ in range(3):
        optimizer.zero_grad()
        (-response_logprobs(model, batch, 1.0).sum()).backward()
        optimizer.step()
    save_adapter(model, tmp_path / "after")
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("before", "after"))
    assert all(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(new, old) for new, old in zip(base.parameters(), untouched.parameters(), strict=True))


def test_an_optimizer_of_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="every parameter is frozen"):
        make_adamw(llama().requires_grad_(False).parameters(), ADAM)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_the_adapter_reaches_the_sampler(family: str) -> None:
    """Greedy responses with a large adapter are the merged model's, and not the base's."""
    base = build(family)
    model = learn(trainable_copy(base, LORA, draws()), 1.0)
    whole = merged(model)
    found = [
        sample(
            network,
            [[3, 4, 5], [6, 7], [8]],
            max_new_tokens=8,
            temperature=0.0,
            generator=draws(),
            eos_id=-1,
            pad_id=PAD,
            batch_size=2,
            with_statistics=False,
        ).responses
        for network in (model, whole, base)
    ]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_the_adapter_reaches_log_probabilities_and_scores(family: str) -> None:
    model = learn(trainable_copy(build(family), LORA, draws()))
    batch = pad_batch([[3, 4], [5]], [[6, 7, EOS], [9, EOS]], PAD)
    with torch.no_grad():
        found, expected, base = (response_logprobs(m, batch, 1.0) for m in (model, merged(model), build(family)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert (found - base).abs().max() > 0.1

    judge = ScalarModel.from_policy(build(family), draws())
    critic = judge.trainable_copy(LORA, draws())
    with torch.no_grad():
        assert torch.equal(critic.scores(batch), judge.scores(batch))
        learn(critic)
        torch.testing.assert_close(critic.scores(batch), merged(critic).scores(batch), rtol=0, atol=1e-4)
        assert (critic.scores(batch) - judge.scores(batch)).abs().max() > 0.01


def test_a_value_model_shares_the_trunk_and_owns_its_head() -> None:
    judge = ScalarModel.from_policy(llama(), draws()).requires_grad_(False)
    critic = judge.trainable_copy(LORA, draws())
    shared = {p.data_ptr() for p in judge.backbone.parameters()}
    assert shared == {p.data_ptr() for p in critic.parameters() if not p.requires_grad}
    assert critic.head.weight.requires_grad and critic.head.weight.data_ptr() != judge.head.weight.data_ptr()
    assert critic.score_bias.data_ptr() != judge.score_bias.data_ptr()


def test_a_merged_reward_model_is_saved_as_any_other(tmp_path: Path) -> None:
    judge = ScalarModel.from_policy(llama(), draws())
    attach(judge.backbone, LORA, draws())
    learn(judge)
    merged(judge).save(tmp_path)
    batch = pad_batch([[3, 4], [5]], [[6, 7, EOS], [9, EOS]], PAD)
    with torch.no_grad():
        torch.testing.assert_close(ScalarModel.load(tmp_path).scores(batch), judge.scores(batch), rtol=0, atol=1e-5)


def test_a_merged_policy_is_saved_as_any_other(tmp_path: Path) -> None:
    model = learn(trainable_copy(llama(), LORA, draws()), 0.1)
    save_policy(merged(model), word_tokenizer(), tmp_path)
    for reloaded in (load_policy(tmp_path, "cpu"), AutoModelForCausalLM.from_pretrained(tmp_path)):
        torch.testing.assert_close(logits(reloaded), logits(model), rtol=0, atol=1e-5)


def test_a_checkpoint_is_what_is_trained() -> None:
    model = learn(trainable_copy(llama(), LORA, draws()))
    state = trained_state(model)
    assert len(state) == 2 * 14 and all("lora_" in name for name in state)
    other = trainable_copy(llama(), LORA, draws(2))
    load_trained_state(other, state)
    assert torch.equal(logits(other), logits(model))
    with pytest.raises(ModelError, match="delete the checkpoint"):
        load_trained_state(llama(), state)
    with pytest.raises(ModelError, match="differs from LlamaForCausalLM in 1 tensors"):
        load_trained_state(other, dict(list(state.items())[1:]))
    whole = llama()
    assert trained_state(whole).keys() == whole.state_dict().keys()


def test_the_average_is_of_what_is_trained() -> None:
    base = llama()
    model = trainable_copy(base, LORA, draws())
    ema = Ema(model, 0.5)
    assert len(ema.average) == 2 * 14
    learn(model)
    ema.update(model)
    averaged = snapshot(model)
    ema.copy_to(averaged)
    one, other = (adapted_layers(m)["model.layers.0.mlp.up_proj"].lora_B["default"].weight for m in (averaged, model))
    torch.testing.assert_close(one, 0.5 * other)
    assert {p.data_ptr() for p in base.parameters()} <= {p.data_ptr() for p in averaged.parameters()}


def test_over_a_base_in_half_precision_the_adapter_is_fp32() -> None:
    base = llama().bfloat16()
    model = trainable_copy(base, LORA, draws())
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.equal(logits(model), logits(base))
    whole = merged(learn(model))
    assert {p.dtype for p in whole.parameters()} == {torch.float32}
    torch.testing.assert_close(logits(whole), logits(model).float(), rtol=0, atol=0.2)
    kept = learn(trainable_copy(base.float(), LORA, draws()))
    torch.testing.assert_close(logits(whole), logits(kept), rtol=0, atol=1e-5)


def test_dropout_is_on_what_adapters_read() -> None:
    fresh, model = trainable_copy(llama(), LORA, draws()), learn(trainable_copy(llama(), LORA, draws()))
    with adapter_dropout(fresh, 0.5, draws(3)):
        assert torch.equal(logits(fresh), logits(llama())), "the base reads everything"
    found = []
    for seed in (3, 3, 4):
        with adapter_dropout(model, 0.5, draws(seed)):
            found.append(logits(model))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert not torch.equal(found[0], logits(model))


def test_targets_are_chosen_by_name_and_unknown_ones_refused() -> None:
    two = LORA.model_copy(update={"targets": ["q_proj", "v_proj"]})
    model = trainable_copy(llama(), two, draws())
    assert {name.rpartition(".")[2] for name in adapted_layers(model)} == {"q_proj", "v_proj"}
    assert len(adapted_layers(model)) == 4
    with pytest.raises(ConfigError, match="no linear layer named c_attn, expected some of down_proj, gate_proj"):
        attach(llama(), LORA.model_copy(update={"targets": ["q_proj", "c_attn"]}), draws())
    assert not adapted_layers(trunk_of(llama()))


def test_the_output_head_gets_none() -> None:
    untied = trainable_copy(llama(tie_word_embeddings=False), LORA, draws())
    assert not any("lm_head" in name for name in adapted_layers(untied))


def test_without_peft_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"adapter=lora needs peft, which is not installed .*\[adapters\]"):
        attach(llama(), LORA, draws())
    with pytest.raises(ConfigError, match="adapter=lora needs peft"):
        check_adapters(load(["adapter=lora"]))
    check_adapters(load([]))


def test_targets_are_checked_before_a_run() -> None:
    some = ["adapter=lora", "adapter.targets=[q_proj,up_proj]"]
    check_adapters(load(some))
    with pytest.raises(
        ConfigError, match=r"adapter.targets: model.architecture.* has no linear layer named c_attn, expected"
    ):
        check_adapters(load(["adapter=lora", "adapter.targets=[q_proj,c_attn]"]))
    with pytest.raises(ConfigError, match="found no layer, expected all-linear or a list of names"):
        load(["adapter=lora", "adapter.targets=[]"])


def test_the_group_reaches_the_stages_that_train_and_no_others() -> None:
    """By the part of the configuration that is in each stage's fingerprint; null gives what there was before."""

    def asked(*overrides: str) -> dict[str, Any]:
        config, found = load(["train_dpo=true", *overrides]), {}

        def run(task: Any, group: str, knobs: Any, about: str = "", **inputs: Any) -> str:
            found[f"{group}/{about}/{task.title}"] = knobs.fingerprint_fields()
            return group

        instructgpt(config, run)
        return found

    without, with_adapter = asked(), asked("adapter=lora")
    assert without == asked("adapter=none")
    changed = {name.partition("/")[0] for name in without if without[name] != with_adapter[name]}
    assert changed == {"sft", "ppo_init", "reward_model", "dpo", "ppo_ptx"}
    one = asked("adapter=lora", "sft.adapter=null")
    assert one["sft//supervised fine-tuning"] == without["sft//supervised fine-tuning"]
    assert all(knobs["adapter"] is None for knobs in without.values() if "adapter" in knobs)
