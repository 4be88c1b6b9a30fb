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
    """B sequences of prompt and response.

    Lengths are on the CPU wherever the tokens are: shapes follow from them, and nobody waits for an accelerator to know one.
    """

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
    def response_places(self) -> tuple[Tensor, Tensor]:  # (N,), (N,) on the CPU
        """Row and column of each response token; column t is response token t."""
        rows, columns = (torch.arange(self.response_width) < self.response_lengths[:, None]).nonzero(as_tuple=True)
        return rows, columns

    @property
    def response_mask(self) -> Tensor:  # (B, R) bool
        """True on response tokens, EOS included; with the tokens."""
        return (torch.arange(self.response_width) < self.response_lengths[:, None]).to(self.input_ids.device)

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch with its tokens on another device."""
        return self._replace(input_ids=self.input_ids.to(device))


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
