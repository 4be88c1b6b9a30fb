"""Token lists as tensors, and rows grouped so that little of a tensor is padding.

A row holds prompt tokens directly followed by response tokens, padded on the right. With causal attention no real token
sees the padding behind it, so no attention mask is needed and positions are simply 0..T-1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.engine.errors import DataError


class TokenBatch(NamedTuple):
    """B sequences of prompt and response."""

    input_ids: Tensor  # (B, T) int64, padded on the right
    prompt_lengths: Tensor  # (B,) int64, at least 1
    response_lengths: Tensor  # (B,) int64

    @property
    def lengths(self) -> Tensor:  # (B,)
        """Real tokens of each row."""
        return self.prompt_lengths + self.response_lengths

    @property
    def response_width(self) -> int:
        """R: the longest response."""
        return int(self.response_lengths.max()) if len(self.response_lengths) else 0

    @property
    def response_mask(self) -> Tensor:  # (B, R) bool
        """True on response tokens, EOS included; column t is response token t."""
        columns = torch.arange(self.response_width, device=self.response_lengths.device)
        return columns < self.response_lengths[:, None]

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on another device."""
        return TokenBatch(*(part.to(device) for part in self))


def pad_batch(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int) -> TokenBatch:
    """Join each prompt with its response and pad on the right.

    Raises:
        DataError: a prompt is empty; the first response token would have no state to be predicted from.
    """
    assert len(prompts) == len(responses), f"{len(prompts)} prompts for {len(responses)} responses"
    if not all(prompts):
        row = next(row for row, prompt in enumerate(prompts) if not prompt)
        raise DataError(f"row {row}: the prompt has 0 tokens, expected at least 1; remove the record or give it text")
    rows = [[*prompt, *response] for prompt, response in zip(prompts, responses, strict=True)]
    width = max(map(len, rows), default=0)
    padded = [row + [pad_id] * (width - len(row)) for row in rows]
    return TokenBatch(
        torch.tensor(padded, dtype=torch.long).view(len(rows), width),
        torch.tensor([len(prompt) for prompt in prompts], dtype=torch.long),
        torch.tensor([len(response) for response in responses], dtype=torch.long),
    )


def nothing_asked(device: torch.device | str) -> TokenBatch:
    """One row of one token and no response: what a rank reads that only keeps others company."""
    return pad_batch([[0]], [[]], 0).to(device)


def microbatches(lengths: Sequence[int], tokens_per_microbatch: int) -> list[list[int]]:
    """Group rows of like length.

    Args:
        lengths: real tokens of each row.
        tokens_per_microbatch: upper bound on rows x longest row of a group; a longer row makes a group of its own.

    Returns:
        Row numbers, every row in exactly one group, shortest rows first. The same lengths always give the same groups.
    """
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        # Lengths ascend, so this row sets the padded width of the group it joins.
        if groups and (len(groups[-1]) + 1) * lengths[row] <= tokens_per_microbatch:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
