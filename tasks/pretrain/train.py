"""Next-token training on packed rows.

InstructGPT starts from GPT-3, so the paper has no such stage; it exists because a run without network and weights
needs a base model. AdamW, linear warm-up, cosine decay; every token of a row but the first is predicted.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.engine.config import RuntimeConfig
from tasks.engine.ranks import here
from tasks.language.adapters import load_trained_state, trained_state
from tasks.language.batches import TokenBatch
from tasks.language.descent import Descent
from tasks.language.logprobs import response_logprobs
from tasks.language.optimization import cosine_to_fraction
from tasks.language.packing import RowCursor
from tasks.language.precision import autocast
from tasks.language.seeds import named_generator
from tasks.language.shards import divide, in_step
from tasks.pretrain.config import PretrainConfig


def learning_rate_multiplier(step: int, config: PretrainConfig) -> float:
    """Linear warm-up to 1 over ``warmup_steps``, then a cosine that reaches ``final_lr_fraction`` at the last
    step."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    decay_steps = max(config.steps - 1 - config.warmup_steps, 1)
    return cosine_to_fraction(step - config.warmup_steps, decay_steps, config.final_lr_fraction)


def summed_row_nll(model: PreTrainedModel, rows: Tensor, runtime: RuntimeConfig) -> Tensor:
    """Sum of -log p over all tokens of full rows but the first of each. (N, L) -> (), nats."""
    count, length = rows.shape
    batch = TokenBatch(rows, torch.ones(count, dtype=torch.long), torch.full((count,), length - 1)).to(model.device)
    with autocast(runtime):
        return -response_logprobs(model, batch, 1.0).sum()


def idle(model: PreTrainedModel, runtime: RuntimeConfig) -> Tensor:
    """``summed_row_nll`` of one token, which nothing predicts."""
    return summed_row_nll(model, torch.zeros(1, 1, dtype=torch.long), runtime)


@torch.no_grad()
def validation_loss(model: PreTrainedModel, rows: Tensor, runtime: RuntimeConfig) -> float:
    """Mean negative log-likelihood per predicted token of (N, L) rows, nats."""
    parts = split_rows(rows, runtime)
    with in_step(model, len(parts), lambda: idle(model, runtime)):
        found = sum(float(summed_row_nll(model, part, runtime)) for part in parts)
    (total,) = here().total(found)
    return total / (rows.shape[0] * (rows.shape[1] - 1))


def split_rows(rows: Tensor, runtime: RuntimeConfig) -> tuple[Tensor, ...]:
    """Those of (N, L) rows that are this rank's, in micro-batches within the token budget."""
    mine = rows[here().deal([rows.shape[1]] * len(rows))]
    return torch.split(mine, max(1, runtime.tokens_per_microbatch // rows.shape[1])) if len(mine) else ()


class PretrainLearner:
    """The state of one pretraining: model, optimizer, place in the data.

    Args:
        model: trained in place.
        rows: (N, L) training rows.
        config: see ``PretrainConfig``.
        runtime: device limits; they change speed, not results.
        valid_rows: (M, L) rows for ``valid/loss`` and ``valid/perplexity``; None measures nothing.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: Tensor,
        config: PretrainConfig,
        runtime: RuntimeConfig,
        *,
        valid_rows: Tensor | None = None,
    ) -> None:
        self.model, self.config, self.runtime, self.valid_rows = model, config, runtime, valid_rows
        self.cursor = RowCursor(rows, named_generator(config.seed, "pretrain/rows"))
        divide(model, runtime)
        self.descent = Descent(
            model, config.adam, lambda taken: learning_rate_multiplier(taken, config), lambda: idle(model, runtime)
        )
        self.completed_steps = 0

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.config.steps

    def step(self) -> dict[str, float]:
        """One optimizer step; every ``valid_every`` steps, and at the last, also the validation loss."""
        started = time.perf_counter()
        rows = self.cursor.draw(self.config.batch_rows)
        predicted = rows.shape[0] * (rows.shape[1] - 1)

        def add_up(parts: Sequence[Tensor]) -> Tensor:
            loss = torch.zeros((), device=self.model.device)
            for part in parts:
                share = summed_row_nll(self.model, part, self.runtime) / predicted
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.detach()
            return loss

        loss = self.descent.add_up(split_rows(rows, self.runtime), add_up)
        here().add(loss)
        taken = self.descent.step(self.completed_steps)
        self.completed_steps += 1
        metrics = {
            "train/loss": float(loss),
            "train/learning_rate": taken.learning_rate,
            "train/grad_norm": taken.grad_norm,
            "train/tokens_per_second": rows.numel() / (time.perf_counter() - started),
        }
        due = self.completed_steps % self.config.valid_every == 0 or self.completed_steps == self.total_steps
        if due and self.valid_rows is not None:
            metrics |= valid_metrics(validation_loss(self.model, self.valid_rows, self.runtime))
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on bit for bit."""
        return {
            "model": trained_state(self.model),
            "optimizer": self.descent.state_dict(),
            "completed_steps": self.completed_steps,
            "cursor": self.cursor.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        load_trained_state(self.model, state["model"])
        self.descent.load_state_dict(state["optimizer"])
        self.completed_steps = int(state["completed_steps"])
        self.cursor.load_state_dict(state["cursor"])


def valid_metrics(loss: float) -> dict[str, float]:
    """The validation loss under its metric names; perplexity is exp(loss)."""
    return {"valid/loss": loss, "valid/perplexity": float(torch.tensor(loss, dtype=torch.float64).exp())}
