"""Frozen weights are rounded once for a whole answer, and nothing else changes."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from tasks.language.adapters import attach
from tasks.language.precision import autocast, rounded_once
from tasks.language.speaker import Speaker
from tests.unit import tiny_models as tiny
from tests.unit.families import PACKED, PADDED, build
from tests.unit.language.test_adapters import LORA, draws, learn
from tests.unit.ppo import tiny as tiny_ppo

BF16 = tiny.runtime(precision="bf16")
TOKENS = 6


class Rounded(TorchDispatchMode):
    """Counts how often each tensor is rounded to bf16, by its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") is torch.bfloat16:
            self.times[args[0].data_ptr()] += 1
        return func(*args, **kwargs)


def answers(model: PreTrainedModel) -> Any:
    speaker = Speaker(model, tiny.tokenizer(), BF16, ends=False)
    prompts = [[3, 4, 5], [6, 7], [8]]
    return speaker.sample(prompts, max_new_tokens=TOKENS, temperature=1.0, generator=draws(), with_statistics=True)


@pytest.mark.parametrize("family", [*PACKED, *PADDED])
def test_answers_are_those_of_weights_that_are_rounded_in_every_product(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = learn(attach(build(family), LORA, draws()))
    ours = answers(model)
    monkeypatch.setattr("tasks.language.precision._is_rounded_anew", lambda _: False)
    theirs = answers(model)
    assert ours.responses == theirs.responses
    assert all(torch.equal(one, other) for one, other in zip(ours.statistics, theirs.statistics, strict=True))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_each_is_rounded_once_for_all_tokens(family: str) -> None:
    model = learn(attach(build(family), LORA, draws()))
    frozen = {p.data_ptr() for p in model.parameters() if not p.requires_grad and p.dim() == 2}
    with Rounded() as rounded:
        answers(model)
    times = [count for place, count in rounded.times.items() if place in frozen]
    assert len(times) > 4 and set(times) == {1}


def test_the_weights_return_whatever_happens() -> None:
    model = attach(build("llama"), LORA, draws())
    before = {name: (id(part), part.data_ptr(), part.dtype) for name, part in model.named_parameters()}
    inside = model.model.layers[0].mlp.up_proj.base_layer
    with pytest.raises(KeyError), autocast(BF16), rounded_once(model):
        assert inside.weight.dtype == torch.bfloat16
        assert model.model.embed_tokens.weight.dtype == torch.float32
        assert all(part.dtype == torch.float32 for part in model.parameters() if part.requires_grad)
        raise KeyError
    assert {name: (id(part), part.data_ptr(), part.dtype) for name, part in model.named_parameters()} == before


def test_what_is_trained_and_what_is_in_full_precision_is_left_alone() -> None:
    for model, runtime in ((build("llama"), BF16), (attach(build("llama"), LORA, draws()), tiny.runtime())):
        with autocast(runtime), rounded_once(model):
            assert all(part.weight.dtype == torch.float32 for part in model.modules() if isinstance(part, nn.Linear))


def test_scoring_an_iteration_rounds_each_frozen_weight_once(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"precision": "bf16", "tokens_per_microbatch": 30}
    learner, other = (tiny_ppo.learner(reference_seed=3, runtime_changes=small) for _ in range(2))
    reference, judge = learner.networks.reference, learner.networks.reward_model
    assert judge is not None
    before = [(id(part), part.dtype) for network in (reference, judge) for part in network.parameters()]
    layers = [
        part for network in (reference, judge.backbone) for part in network.modules() if isinstance(part, nn.Linear)
    ]
    frozen = {part.weight.data_ptr() for part in layers}
    with Rounded() as rounded:
        learner.step()
    assert len(frozen) > 10 and {rounded.times[place] for place in frozen} == {1}
    assert [(id(part), part.dtype) for network in (reference, judge) for part in network.parameters()] == before
    monkeypatch.setattr("tasks.language.precision._is_rounded_anew", lambda _: False)
    with Rounded() as rounded:
        other.step()
    assert max(rounded.times.values()) > 3, "one microbatch proves nothing"
    assert learner.last_rollout is not None and other.last_rollout is not None
    for name in ("reference_logprobs", "raw_score", "values"):
        assert torch.equal(getattr(learner.last_rollout, name), getattr(other.last_rollout, name)), name


def test_networks_that_share_a_weight_share_what_it_was_rounded_to() -> None:
    one, other = (nn.Sequential(nn.Linear(4, 4, bias=False)).requires_grad_(False) for _ in range(2))
    other[0].weight = one[0].weight
    with autocast(BF16), rounded_once(one, other):
        assert one[0].weight is other[0].weight and one[0].weight.dtype == torch.bfloat16
    assert one[0].weight is other[0].weight and one[0].weight.dtype == torch.float32
