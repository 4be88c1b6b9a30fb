"""Frozen linear layers in 4 bits: what adapters can be beside where memory is short.

Weights are rounded to NormalFloat (NF4) in blocks of 64 with one fp32 scale each, 4.5 bits a weight, by bitsandbytes. Every
product is computed with the rounded weights in full, which are made for it and forgotten: sampling, scoring and training read
the same numbers, and a merged product is exactly what was trained on.

Source: Dettmers et al. 2023 (QLoRA, arXiv:2305.14314).
"""

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from tasks.engine.errors import ConfigError
from tasks.language.sizes import FOUR_BIT_BLOCK

KIND = "nf4"


class FourBitLinear(nn.Linear):
    """A linear layer, or the Conv1D of GPT-2, whose weights are codes; nothing about it is trained.

    Codes and scales are parameters, so that networks share them as they share other frozen weights.
    """

    scales: nn.Parameter

    def __init__(self, layer: nn.Linear | Conv1D) -> None:
        nn.Module.__init__(self)
        values = layer.weight.detach().float()
        self.turned = isinstance(layer, Conv1D)
        values = values.t().contiguous() if self.turned else values.contiguous()
        self.out_features, self.in_features = values.shape
        codes, state = load_bitsandbytes().quantize_4bit(values, blocksize=FOUR_BIT_BLOCK, quant_type=KIND)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(state.absmax, requires_grad=False)
        self.bias = layer.bias

    def values(self) -> Tensor:  # (out, in) fp32
        """The rounded weights."""
        package, shape = load_bitsandbytes(), (self.out_features, self.in_features)
        # As one row: its CPU kernel gives rows that are no multiple of a block the scales of others.
        row = torch.Size((1, shape[0] * shape[1]))
        how = package.QuantState(
            self.scales.data, shape=row, dtype=torch.float32, blocksize=FOUR_BIT_BLOCK, quant_type=KIND
        )
        found: Tensor = package.dequantize_4bit(self.weight.data, how)
        return found.reshape(shape)

    def dense(self) -> nn.Linear | Conv1D:
        """The layer as it was, with the rounded weights."""
        made: Any = (Conv1D if self.turned else nn.Linear)(1, 1)
        if not self.turned:
            made.in_features, made.out_features = self.in_features, self.out_features
        else:
            made.nx, made.nf = self.in_features, self.out_features
        made.weight = nn.Parameter(self.values().t().contiguous() if self.turned else self.values())
        made.bias = self.bias
        return made

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        kind = input.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else input.dtype
        product: Tensor = _Product.apply(input.to(dtype), self)  # type: ignore[no-untyped-call]
        return product if self.bias is None else product + self.bias.to(dtype)


class _Product(torch.autograd.Function):
    """``input @ weight.T`` that keeps the codes for the backward pass, not the weights."""

    @staticmethod
    def forward(context: Any, input: Tensor, layer: FourBitLinear) -> Tensor:
        context.layer = layer
        return functional.linear(input, layer.values().to(input.dtype))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ context.layer.values().to(gradient.dtype), None


def replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of another."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, layer)


def four_bit_layers(network: nn.Module) -> dict[str, FourBitLinear]:
    """Name -> layer."""
    return {name: part for name, part in network.named_modules() if isinstance(part, FourBitLinear)}


def load_bitsandbytes() -> Any:
    """Its functions; the package is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes.functional as found
    except ImportError as error:
        raise ConfigError(
            f"adapter.base=4bit needs bitsandbytes, which is not installed ({error}); install it with "
            "`pip install -c constraints.txt -e .[four-bit]`, or set adapter.base=full"
        ) from error
    return found
