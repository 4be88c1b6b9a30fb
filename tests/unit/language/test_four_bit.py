"""Bases in 4 bits: rounded as NF4 says, shared, left alone by training, and shipped as what was trained on.

What refuses other devices is a check before the run; the arithmetic is the same on a CPU, and is tested there.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from flows.ask.doctor.requirements import check_adapters
from flows.config import RLHFConfig, load
from tasks.engine.errors import ConfigError
from tasks.language.adapters import adapted_layers, attach, freeze, merged, quantise, trainable_copy, trained_state
from tasks.language.bases import load_base
from tasks.language.batches import pad_batch
from tasks.language.four_bit import FourBitLinear, four_bit_layers
from tasks.language.generation import sample
from tasks.language.logprobs import response_logprobs
from tasks.language.models import ScalarModel, load_policy, save_policy
from tests.unit.families import build
from tests.unit.language.test_adapters import LORA, draws, learn, logits
from tests.unit.tiny import PAD, llama, word_tokenizer

QLORA = LORA.model_copy(update={"base": "4bit"})
# Dettmers et al. 2023, appendix E
NF4 = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334]
NF4 += [-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
NF4 += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]


def storages(network: nn.Module) -> dict[int, int]:
    found = [p.untyped_storage() for p in network.parameters()]
    return {storage.data_ptr(): storage.nbytes() for storage in found}


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D])
def test_weights_are_the_nearest_of_16_values_times_the_largest_of_their_block(kind: Any) -> None:
    layer = kind(96, 64)  # Conv1D: 64 in, 96 out
    nn.init.normal_(layer.weight, generator=draws())
    nn.init.normal_(layer.bias, generator=draws(2))
    weight = layer.weight.t() if kind is Conv1D else layer.weight
    blocks = weight.detach().reshape(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True)
    nearest = (blocks / scale).unsqueeze(-1).sub(torch.tensor(NF4)).abs().argmin(-1)
    expected = (torch.tensor(NF4)[nearest] * scale).reshape(weight.shape)
    made = FourBitLinear(layer)
    torch.testing.assert_close(made.values(), expected, rtol=0, atol=1e-6)
    assert made.weight.nbytes == weight.numel() // 2 and made.scales.nbytes == weight.numel() // 16
    x = torch.randn(3, weight.shape[1], generator=draws(3))
    torch.testing.assert_close(made(x), x @ expected.T + layer.bias, rtol=0, atol=1e-5)
    again = made.dense()
    assert type(again) is kind and again.weight.shape == layer.weight.shape
    torch.testing.assert_close(again(x), made(x), rtol=0, atol=1e-5)
    assert torch.equal(FourBitLinear(again).values(), made.values()), "what is rounded is rounded to itself"


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "opt"])
@pytest.mark.parametrize("targets", ["all-linear", "one"])
def test_a_merged_model_is_what_was_trained_on(family: str, targets: str, tmp_path: Path) -> None:
    """The merged weights are the rounded ones and the adapter in fp32, so that only the order of sums differs: 1e-5, as
    for a base in full."""
    base = build(family)
    full, sizes = logits(base), {name: weight.shape for name, weight in base.state_dict().items()}
    one = QLORA.model_copy(update={"targets": ["c_attn" if family == "gpt2" else "query_key_value"]})
    one = one if family in ("gpt2", "gpt_neox") else QLORA.model_copy(update={"targets": ["q_proj"]})
    model = trainable_copy(base, QLORA if targets == "all-linear" else one, draws())
    assert torch.equal(logits(model), logits(base)), "a fresh adapter changes nothing, to the bit"
    assert 0.01 < (logits(base) - full).abs().max() < 5.0, "rounded, and recognisable"
    before = [p.clone() for p in base.parameters()]
    learn(model, 0.1)
    adapted = logits(model)
    assert (adapted - logits(base)).abs().max() > 0.01
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), before, strict=True))
    whole = merged(model)
    assert {name: weight.shape for name, weight in whole.state_dict().items()} == sizes
    assert {weight.dtype for weight in whole.state_dict().values()} == {torch.float32}
    assert not four_bit_layers(whole) and not adapted_layers(whole)
    torch.testing.assert_close(logits(whole), adapted, rtol=0, atol=1e-5)
    save_policy(model, word_tokenizer(), tmp_path)
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), adapted, rtol=0, atol=1e-5)


def test_the_rounded_base_is_in_memory_once_and_is_small(tmp_path: Path) -> None:
    base = llama(hidden_size=64, intermediate_size=128)
    whole = sum(storages(base).values())
    linear = sum(p.numel() for name, p in base.named_parameters() if "proj" in name)
    model = trainable_copy(base, QLORA, draws())
    assert storages(base).keys() <= storages(model).keys()
    assert sum(storages(base).values()) == whole - 4 * linear + linear * 9 // 16  # 4.5 bits of 32
    state = trained_state(learn(model))
    assert len(state) == 2 * 14 and all("lora_" in name for name in state)
    freeze(base, "bf16")
    assert {p.dtype for layer in four_bit_layers(base).values() for p in (layer.weight, layer.scales)} == {
        torch.uint8,
        torch.float32,
    }
    assert base.model.norm.weight.dtype == torch.bfloat16
    quantise(base)
    assert torch.equal(logits(base), logits(base)) and len(four_bit_layers(base)) == 14


def test_gradients_are_those_of_the_rounded_weights_in_full() -> None:
    batch, found = pad_batch([[3, 4], [5]], [[6, 7, 8], [9, 10]], PAD), []
    rounded = llama()
    quantise(rounded)
    full = copy.deepcopy(rounded)
    for name, layer in four_bit_layers(full).items():
        parent, _, child = name.rpartition(".")
        setattr(full.get_submodule(parent), child, layer.dense())
    for network, config in ((rounded, QLORA), (full, LORA)):
        model = learn(attach(network, config, draws()))
        response_logprobs(model, batch, 1.0).sum().backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    assert len(found[0]) == 2 * 14
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_bf16_rounds_products_and_not_the_base() -> None:
    model = learn(trainable_copy(llama(), QLORA, draws()))
    batch = pad_batch([[3, 4], [5]], [[6, 7, 8], [9, 10]], PAD)
    full = response_logprobs(model, batch, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = response_logprobs(model, batch, 1.0)
    half.sum().backward()
    assert (half - full).abs().max() < 0.3 and not torch.equal(half, full)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad)


def test_the_sampler_and_the_scores_read_the_same_weights() -> None:
    model = learn(trainable_copy(llama(), QLORA, draws()), 1.0)
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
        for network in (model, merged(model))
    ]
    assert found[0] == found[1]
    batch = pad_batch([[3, 4], [5]], [[6, 7], [9]], PAD)
    judge = ScalarModel.from_policy(llama(), draws())
    critic = learn(judge.trainable_copy(QLORA, draws()))
    with torch.no_grad():
        torch.testing.assert_close(critic.scores(batch), merged(critic).scores(batch), rtol=0, atol=1e-4)


def test_a_stage_s_base_is_rounded_where_that_is_asked_for(tmp_path: Path) -> None:
    save_policy(llama(), word_tokenizer(), tmp_path)
    assert torch.equal(logits(load_base(tmp_path, "cpu", LORA)), logits(load_policy(tmp_path, "cpu")))
    assert torch.equal(logits(load_base(tmp_path, "cpu", None)), logits(load_policy(tmp_path, "cpu")))
    assert len(four_bit_layers(load_base(tmp_path, "cpu", QLORA))) == 14


def asked(**limits: Any) -> RLHFConfig:
    config = load(["adapter=lora", "adapter.base=4bit"])
    return config.model_copy(update={"runtime": config.runtime.model_copy(update=limits)})


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        ({"device": "cpu"}, "runtime.device is cpu"),
        ({"device": "cuda", "processes": 2}, "runtime.processes is 2"),
        ({"device": "cpu", "processes": 2}, "runtime.processes is 2"),
    ],
)
def test_other_devices_and_several_processes_are_refused_before_the_run(limits: dict[str, Any], found: str) -> None:
    sentence = f"adapter.base is 4bit and {found}, expected one process on one CUDA device; use runtime=gpu and"
    with pytest.raises(ConfigError, match=sentence):
        check_adapters(asked(**limits))
    check_adapters(asked(device="cuda"))


def test_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match="adapter"):
        check_adapters(asked(device="cuda", shard="full"))


def test_without_bitsandbytes_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    with pytest.raises(
        ConfigError, match=r"adapter.base=4bit needs bitsandbytes, which is not installed .*\[four-bit\]"
    ):
        check_adapters(asked(device="cuda"))
    with pytest.raises(ConfigError, match="needs bitsandbytes"):
        attach(llama(), QLORA, draws())
