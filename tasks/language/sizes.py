"""How large things are in memory, for the code that makes them and for the arithmetic of a run that makes none."""

from tasks.engine.config import AdapterConfig

LOGITS_PER_CHUNK = 2**26
"""Logits held at a time (256 MiB in fp32). More are computed piece by piece, and again in the backward pass."""
FOUR_BIT_BLOCK = 64
"""Weights in 4 bits that share a scale."""
FOUR_BIT_BYTES = 0.5 + 4 / FOUR_BIT_BLOCK
"""Of one weight in 4 bits: its code, and its part of the scale."""


def in_four_bits(adapter: AdapterConfig | None) -> bool:
    """Whether what an adapter is beside is kept in 4 bits."""
    return adapter is not None and adapter.base == "4bit"
