"""Whether a model is decoded as it reads: token by token beside another sequence, against one forward pass of its own."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.language.batches import pad_batch
from tasks.language.families import hidden_states, logits_of, trunk_of
from tasks.language.replaying import reader_of
from tasks.language.vocabulary import rows_of

PROMPTS, STEPS = (9, 4), 4
"""Tokens of two prompts, and how many follow each."""


@torch.no_grad()
def largest_disagreement(model: PreTrainedModel) -> float:
    """Largest difference of a logit, as a share of the spread of that token's logits; of sampling and of scoring."""
    draws = torch.Generator().manual_seed(0)
    rows = [torch.randint(rows_of(model), (length + STEPS,), generator=draws).tolist() for length in PROMPTS]
    own = [
        model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0, length - 1 : -1]
        for row, length in zip(rows, PROMPTS, strict=True)
    ]
    expected = torch.stack(own).float()  # (B, STEPS, V)
    spread = (expected.amax(-1) - expected.amin(-1)).clamp(min=1e-9)
    return max(
        float(((read(model, rows) - expected).abs().amax(-1) / spread).nan_to_num(torch.inf).max())
        for read in (_decoded, _scored)
    )


def _decoded(model: PreTrainedModel, rows: list[list[int]]) -> Tensor:  # (B, STEPS, V)
    trunk = trunk_of(model)
    prompts = [row[:length] for row, length in zip(rows, PROMPTS, strict=True)]
    following = torch.tensor([row[-STEPS:] for row in rows], device=model.device)
    reader = reader_of(trunk, prompts, STEPS)
    states = [reader.read_prompts(), *(reader.read(following[:, step]).clone() for step in range(STEPS - 1))]
    return logits_of(model, torch.stack(states, dim=1)).float()


def _scored(model: PreTrainedModel, rows: list[list[int]]) -> Tensor:  # (B, STEPS, V)
    prompts = [row[:length] for row, length in zip(rows, PROMPTS, strict=True)]
    batch = pad_batch(prompts, [row[-STEPS:] for row in rows], 0).to(model.device)
    which = torch.arange(len(rows)).repeat_interleave(STEPS)
    columns = torch.cat([torch.arange(length - 1, length - 1 + STEPS) for length in PROMPTS])
    states = hidden_states(trunk_of(model), batch, batch.lengths, which, columns)
    return logits_of(model, states.view(len(rows), STEPS, -1)).float()
