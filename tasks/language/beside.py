"""What a layer with an adapter computes, in fewer passes over memory than peft's own forward.

peft casts what both products read, scales every output of the second and adds it in a pass of its own. Here the thin factor is
scaled, and the second product adds to the base's output as it goes. On a CPU that is a quarter of a training step.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor


def spare_passes(layer: Any, name: str) -> None:
    """Have one of peft's layers over a linear layer compute in this way, as its copies then do. Others keep their forward.

    Args:
        layer: with an adapter that is neither merged nor switched off, and without dropout of its own.
        name: of its only adapter.
    """

    def forward(own: Any, inputs: Tensor) -> Tensor:  # (..., in) -> (..., out)
        output: Tensor = own.base_layer(inputs)
        down, up = own.lora_A[name], own.lora_B[name].weight * own.scaling[name]
        casts = torch.is_autocast_enabled(inputs.device.type)
        low: Tensor = down(inputs if casts else inputs.to(down.weight.dtype))
        if not casts and output.dtype != low.dtype:  # a base in bf16: the sum is rounded, not the adapter
            summed: Tensor = output + low @ up.T
            return summed.to(output.dtype)
        return torch.addmm(output.flatten(0, -2), low.flatten(0, -2), up.T).view(output.shape)

    layer.forward = MethodType(forward, layer)
