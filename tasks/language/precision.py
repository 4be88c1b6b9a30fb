"""Half precision: products in bf16 over weights that stay fp32."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from tasks.engine.config import RuntimeConfig
from tasks.language.recompute import recomputing
from tasks.language.shards import is_divided


@contextmanager
def autocast(runtime: RuntimeConfig) -> Iterator[None]:
    """bf16 for matrix products when the runtime asks for it, over weights that stay fp32; layers computed again in the
    backward pass when it asks for that."""
    kind, half = torch.device(runtime.device).type, runtime.precision == "bf16"
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=half), recomputing(runtime.gradient_checkpointing):
        yield


@contextmanager
def rounded_once(*networks: nn.Module) -> Iterator[None]:
    """Under autocast, have frozen linear layers rounded once instead of in every product; no output changes.

    Autocast remembers only what it rounded of weights that are trained. One token's products with all others, as under an
    adapter, are then mostly the rounding, and so is a good part of a small microbatch. It costs half of those weights' memory
    for as long as it lasts; networks that share a weight share what it was rounded to.
    """
    known: dict[int, nn.Parameter] = {}
    with ExitStack() as stack:
        for network in (network for network in networks if not is_divided(network)):
            trunk = getattr(network, "backbone", network)  # a scalar head computes in full precision
            kind = next(trunk.parameters()).device.type
            if not torch.is_autocast_enabled(kind):
                continue
            half = torch.get_autocast_dtype(kind)
            for layer in trunk.modules():
                if isinstance(layer, nn.Linear | Conv1D) and _is_rounded_anew(layer.weight):
                    weight = layer.weight
                    stack.callback(setattr, layer, "weight", weight)
                    if id(weight) not in known:
                        known[id(weight)] = nn.Parameter(weight.to(half), requires_grad=False)
                    layer.weight = known[id(weight)]
        yield


def _is_rounded_anew(weight: torch.Tensor) -> bool:
    return weight.dtype == torch.float32 and not weight.requires_grad
