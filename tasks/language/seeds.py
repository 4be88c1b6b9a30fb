"""The one way from a configured seed to random numbers: every use has a name, and a stream of its own.

Using one more number here shifts nothing there, and no seed's stream is another seed's, as ``seed + 1`` of seed 1 would be
the stream of seed 2.
"""

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands without a network need seeds too, and should start fast
    import torch


def derived_seed(seed: int, *names: str | int) -> int:
    """A seed for one named use of randomness."""
    digest = hashlib.sha256("/".join(map(str, (*names, seed))).encode()).digest()
    return int.from_bytes(digest[:7], "big")


def named_generator(seed: int, name: str, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """Random tensors for one named use, such as ``ppo/minibatches``."""
    import torch

    return torch.Generator(device=device).manual_seed(derived_seed(seed, name))


def named_random(seed: int, name: str) -> random.Random:
    """Random orders and choices for one named use, such as ``sft/order``."""
    return random.Random(derived_seed(seed, name))
