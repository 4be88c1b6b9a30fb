"""Layers computed again in the backward pass: equal gradients, the same draws, fewer bytes kept."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch

from tasks.engine.errors import ModelError
from tasks.language.adapters import adapter_dropout, trainable_copy
from tasks.language.batches import TokenBatch, pad_batch
from tasks.language.dropout import residual_dropout
from tasks.language.families import _recomputable, trunk_of
from tasks.language.logprobs import response_logprobs
from tasks.language.precision import autocast
from tasks.language.recompute import recomputing
from tests.unit.families import PACKED, build
from tests.unit.language.test_adapters import LORA, learn
from tests.unit.tiny import PAD, llama
from tests.unit.tiny_models import runtime


def batch() -> TokenBatch:
    prompts = [[3, 4, 5], [6], [7, 8, 9, 10, 11]]
    return pad_batch(prompts, [[12, 13], [14, 15, 16, 17], [18]], PAD)


def gradients(model: Any, recompute: bool, dropout: float = 0.0, precision: str = "fp32") -> dict[str, torch.Tensor]:
    """Of the summed log-probability; the backward pass runs outside of the forward pass's contexts, but dropout's."""
    draws = torch.Generator().manual_seed(4)
    model.zero_grad(set_to_none=True)
    with residual_dropout(model, dropout, draws) if dropout else nullcontext():
        with autocast(runtime(gradient_checkpointing=recompute, precision=precision)):
            found = response_logprobs(model, batch(), 0.7).sum()
        found.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", [*PACKED, "bloom"])
def test_gradients_are_equal(family: str) -> None:
    model = build(family)
    usual, again = gradients(model, False), gradients(model, True)
    assert usual.keys() == again.keys() and len(usual) > 4
    for name, gradient in usual.items():
        torch.testing.assert_close(
            again[name], gradient, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_gradients_are_equal_with_dropout() -> None:
    """The second time a layer drops what it dropped the first time, and later layers' draws are not disturbed."""
    model = llama(num_hidden_layers=3)
    usual, again = gradients(model, False, dropout=0.4), gradients(model, True, dropout=0.4)
    for name, gradient in usual.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=1e-6)
    none = gradients(model, False)
    assert any((usual[name] - none[name]).abs().max() > 1e-2 for name in usual)


def test_gradients_are_equal_in_half_precision() -> None:
    usual, again = (gradients(llama(), recompute, precision="bf16") for recompute in (False, True))
    assert all(torch.equal(usual[name], again[name]) for name in usual)


def test_gradients_reach_adapters_over_frozen_embeddings() -> None:
    """With the reentrant kind, a layer whose input needs no gradient trains nothing below it."""
    model = learn(trainable_copy(llama(), LORA, torch.Generator().manual_seed(1)))
    usual, again = gradients(model, False), gradients(model, True)
    assert len(again) == 2 * 14 and all("lora_" in name for name in again)
    for name, gradient in usual.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=1e-6)


def test_adapters_drop_the_same_twice() -> None:
    model = learn(trainable_copy(llama(), LORA, torch.Generator().manual_seed(1)))
    found = []
    for recompute in (False, True):
        draws = torch.Generator().manual_seed(5)
        model.zero_grad(set_to_none=True)
        with adapter_dropout(model, 0.5, draws), autocast(runtime(gradient_checkpointing=recompute)):
            response_logprobs(model, batch(), 1.0).sum().backward()
        found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for usual, again in zip(*found, strict=True):
        torch.testing.assert_close(again, usual, rtol=0, atol=1e-6)
    assert any((a - b).abs().max() > 1e-2 for a, b in zip(found[0], gradients(model, False).values(), strict=True))


def test_fewer_bytes_are_kept_and_layers_run_twice() -> None:
    model = llama(num_hidden_layers=4)
    kept, calls = {}, {}
    for recompute in (False, True):
        storages: dict[int, int] = {}
        count = [0]

        def keep(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        def called(*_: Any, count: list[int] = count) -> None:
            count[0] += 1

        hook = trunk_of(model).layers[1].mlp.register_forward_pre_hook(called)
        looking = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with looking, autocast(runtime(gradient_checkpointing=recompute)):
            found = response_logprobs(model, batch(), 1.0).sum()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        kept[recompute] = sum(size for place, size in storages.items() if place not in weights)
        found.backward()
        hook.remove()
        calls[recompute] = count[0]
    assert calls == {False: 1, True: 2}
    assert kept[True] < 0.5 * kept[False], kept


def test_a_family_with_layers_elsewhere_is_refused() -> None:
    expected = r"Linear: found no decoder layers .*runtime.gradient_checkpointing=false"
    with recomputing(True), pytest.raises(ModelError, match=expected):
        _recomputable(torch.nn.Linear(2, 2))


def test_nothing_stays_on_the_layers() -> None:
    model = llama()
    gradients(model, True)
    assert all("forward" not in vars(layer) for layer in trunk_of(model).layers)
