"""The shorter forward of an adapted layer computes what peft's own does."""

import copy
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tasks.language.adapters import adapted_layers, attach
from tests.unit.language.test_adapters import LORA, draws, learn
from tests.unit.tiny import gpt2, llama


def results(layer: Any, forward: Any, inputs: Tensor, half: bool) -> list[Tensor]:
    """Output, and gradients of the inputs and of both factors."""
    inputs = inputs.clone().requires_grad_(True)
    factors = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        output = forward(inputs)
    weighed = (output.float() * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum()
    return [output, *torch.autograd.grad(weighed, [inputs, *factors])]


@pytest.mark.parametrize("build", [llama, gpt2])
@pytest.mark.parametrize(
    ("frozen", "half", "tolerance"), [("fp32", False, 1e-6), ("bf16", False, 8e-3), ("fp32", True, 8e-3)]
)
def test_it_is_what_peft_computes(build: Any, frozen: Any, half: bool, tolerance: float) -> None:
    model = learn(attach(build(), LORA, draws(), frozen))
    for name, layer in adapted_layers(model).items():
        dtype = torch.bfloat16 if frozen == "bf16" else torch.float32
        inputs = torch.randn(2, 5, layer.in_features, generator=draws(4)).to(dtype)
        of_peft = partial(type(layer).forward, layer)
        pairs = zip(results(layer, layer, inputs, half), results(layer, of_peft, inputs, half), strict=True)
        for ours, theirs in pairs:
            assert ours.dtype == theirs.dtype
            assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max(), name
        assert layer.forward.__func__ is not type(layer).forward


def test_a_copy_computes_with_its_own_weights() -> None:
    model = learn(attach(llama(), LORA, draws()))
    copied = copy.deepcopy(model)
    name, layer = next(iter(adapted_layers(copied).items()))
    inputs = torch.randn(3, layer.in_features, generator=draws(4))
    before = adapted_layers(model)[name](inputs)
    with torch.no_grad():
        layer.lora_B["default"].weight.zero_()
    assert torch.equal(adapted_layers(model)[name](inputs), before)
    assert torch.equal(layer(inputs), layer.base_layer(inputs))


def test_what_peft_imports_tells_nothing_of_its_own() -> None:
    program = "from tasks.language.adapters import load_peft; load_peft(); import peft.tuners.lora"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "kernels" not in done.stderr
