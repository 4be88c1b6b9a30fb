"""Supervised fine-tuning, step by step.

Deviations from InstructGPT, which leaves these open: only completion tokens and EOS are counted (``mask_prompt``);
the loss is the mean over the counted tokens of the whole optimizer batch; pretraining rows take the place of
demonstrations slot by slot.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import DataError
from tasks.engine.ranks import here
from tasks.language.adapters import adapter_dropout, load_trained_state, trained_state
from tasks.language.batches import TokenBatch, microbatches, pad_batch
from tasks.language.descent import Descent, cosine
from tasks.language.dropout import draw_residual_dropout, residual_dropout
from tasks.language.logprobs import response_logprobs
from tasks.language.packing import RowCursor, encode_documents, pack_documents
from tasks.language.precision import autocast
from tasks.language.room import halved
from tasks.language.seeds import named_generator
from tasks.language.shards import divide, in_step, whole
from tasks.language.share import my_microbatches
from tasks.language.text import encode_prompt, encode_response
from tasks.language.token_table import TokenTable
from tasks.records.records import Demonstration, Document
from tasks.sft.config import SFTConfig
from tasks.sft.loss import summed_nll
from tasks.sft.plan import PlannedBatch, plan_batches
from tasks.sft.selection import pick_checkpoint


class TrainingSequence(NamedTuple):
    """Tokens the model is given, and the tokens after them whose prediction is counted."""

    given: list[int]
    counted: list[int]

    @property
    def tokens(self) -> int:
        """Of both."""
        return len(self.given) + len(self.counted)


class Cut(NamedTuple):
    """A microbatch of a step."""

    rows: list[int]
    mine: bool = True
    """Whether this rank reads it; of the others it only draws the dropout."""

    def halves(self) -> "list[Cut]":
        """The same rows in two; one where there is one row."""
        return [Cut(rows, self.mine) for rows in halved(self.rows)]


def demonstration_sequence(
    demonstration: Demonstration, tokenizer: PreTrainedTokenizerBase, config: SFTConfig
) -> TrainingSequence:
    """Prompt, then response and EOS; without ``mask_prompt`` every token after the first is counted."""
    prompt = encode_prompt(tokenizer, demonstration.prompt.text, config.prompt_tokens)
    response = encode_response(tokenizer, demonstration.response, demonstration.prompt.text)[: config.response_tokens]
    if config.mask_prompt:
        return TrainingSequence(prompt, response)
    return every_token_counts(prompt + response)


def every_token_counts(tokens: list[int]) -> TrainingSequence:
    """All tokens but the first, which nothing predicts."""
    return TrainingSequence(tokens[:1], tokens[1:])


def _sequence(lists: list[list[int]]) -> TrainingSequence:
    given, counted = lists
    return TrainingSequence(given, counted)


class SFTLearner:
    """The state of one fine-tuning: model, optimizer, data order, dropout, and the epochs' validation losses.

    Args:
        model: trained in place.
        demonstrations: training demonstrations.
        documents: pretraining text for the mix; may be empty when ``pretraining_fraction`` is 0.
        tokenizer: its EOS closes every response.
        config: see ``SFTConfig``.
        runtime: device limits; they change speed, not results.
        valid: validation demonstrations; ``valid/loss`` is measured on them after every epoch. May be empty unless
            ``selection`` is ``validation_loss``.
        keep_epoch: called after every epoch with its number (from 1) and the model, so that a caller can save the
            weights that a later selection by reward model chooses from. It may be called twice for an epoch when a
            killed run resumes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        demonstrations: Sequence[Demonstration],
        documents: Sequence[Document],
        tokenizer: PreTrainedTokenizerBase,
        config: SFTConfig,
        runtime: RuntimeConfig,
        *,
        valid: Sequence[Demonstration] = (),
        keep_epoch: Callable[[int, PreTrainedModel], None] | None = None,
    ) -> None:
        _check_data(demonstrations, documents, valid, config)
        self.model, self.config, self.runtime, self.keep_epoch = model, config, runtime, keep_epoch
        self.pad_id = int(tokenizer.pad_token_id)
        self.sequences, self.valid = (
            TokenTable((demonstration_sequence(item, tokenizer, config) for item in items), tuple, _sequence)
            for items in (demonstrations, valid)
        )
        self.plan = plan_batches(
            len(self.sequences),
            epochs=config.epochs,
            batch_size=config.batch_size,
            pretraining_fraction=config.pretraining_fraction,
            seed=config.seed,
        )
        self.cursor: RowCursor | None = None
        if config.pretraining_fraction:
            rows = pack_documents(
                encode_documents(tokenizer, (document.text for document in documents)),
                config.row_tokens,
                int(tokenizer.eos_token_id),
            )
            self.cursor = RowCursor(rows, named_generator(config.seed, "sft/pretraining"))
        divide(model, runtime)
        self.dropout_draws = named_generator(config.seed, "sft/dropout", model.device)
        self.descent = Descent(
            model, config.adam.beside(config.adapter), cosine(len(self.plan), config.final_lr_fraction), self._idle
        )
        self.completed_steps = 0
        self.valid_losses: dict[int, float] = {}
        self.best_weights: dict[str, Tensor] | None = None

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return len(self.plan)

    @property
    def counted_tokens(self) -> int:
        """Tokens of demonstrations and of pretraining rows whose prediction the whole training counts."""
        of_demonstrations = sum(
            len(self.sequences[index].counted) for batch in self.plan for index in batch.demonstrations
        )
        return of_demonstrations + sum(batch.pretraining_rows for batch in self.plan) * (self.config.row_tokens - 1)

    def step(self) -> dict[str, float]:
        """One optimizer step; after the last batch of an epoch also its validation loss."""
        started = time.perf_counter()
        planned = self.plan[self.completed_steps]
        # 1. Collect the batch: demonstrations, and pretraining rows in the slots drawn for them.
        sequences = self._sequences_of(planned)
        # 2. Sum the loss over all counted tokens, micro-batch by micro-batch.
        counted = sum(len(sequence.counted) for sequence in sequences)
        drawn = self.dropout_draws.get_state()

        def add_up(cuts: Sequence[Cut]) -> Tensor:
            self.dropout_draws.set_state(drawn)
            loss = torch.zeros((), device=self.model.device)
            with self._dropout():
                for cut in cuts:
                    chosen = [sequences[row] for row in cut.rows]
                    if cut.mine:
                        share = self._summed_nll(chosen) / counted
                        share.backward()  # type: ignore[no-untyped-call]
                        loss += share.detach()
                    else:
                        self._draw_dropout(chosen)
            return loss

        cuts = self._cuts(sequences)
        loss = self.descent.add_up(cuts, add_up, sum(cut.mine for cut in cuts))
        here().add(loss)
        # 3. Step.
        taken = self.descent.step(self.completed_steps)
        self.completed_steps += 1
        tokens = sum(sequence.tokens for sequence in sequences)
        metrics = {
            "train/loss": float(loss),
            "train/learning_rate": taken.learning_rate,
            "train/grad_norm": taken.grad_norm,
            "train/tokens_per_second": tokens / (time.perf_counter() - started),
        }
        # 4. Close the epoch.
        return metrics | self._close_epoch(planned.epoch) if planned.closes_epoch else metrics

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean negative log-likelihood per counted token of the validation demonstrations, dropout off."""
        counted = sum(len(sequence.counted) for sequence in self.valid)
        total = torch.zeros((), dtype=torch.float64, device=self.model.device)
        microbatches = self._microbatches(self.valid)
        with in_step(self.model, len(microbatches), self._idle):
            for rows in microbatches:
                total += self._summed_nll([self.valid[row] for row in rows])
        here().add(total)
        return float(total) / counted

    def load_selected(self) -> int:
        """Put the selected epoch's weights into the model; returns that epoch.

        With ``selection: reward_model`` the last epoch stays for now: the choice is a second pass over the kept
        epochs (``tasks.sft.selection.select_by_reward``).
        """
        if self.config.selection != "validation_loss":
            return self.config.epochs
        assert self.best_weights is not None, "load_selected comes after the last step"
        load_trained_state(self.model, self.best_weights)
        return self._best_epoch()

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs to go on bit for bit."""
        return {
            "model": trained_state(self.model),
            "optimizer": self.descent.state_dict(),
            "completed_steps": self.completed_steps,
            "dropout_draws": self.dropout_draws.get_state(),
            "cursor": self.cursor.state_dict() if self.cursor else None,
            "valid_losses": dict(self.valid_losses),
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        load_trained_state(self.model, state["model"])
        self.descent.load_state_dict(state["optimizer"])
        self.completed_steps = int(state["completed_steps"])
        self.dropout_draws.set_state(state["dropout_draws"].cpu())
        if self.cursor:
            self.cursor.load_state_dict(state["cursor"])
        self.valid_losses = dict(state["valid_losses"])
        self.best_weights = state["best_weights"]

    def _sequences_of(self, planned: PlannedBatch) -> list[TrainingSequence]:
        sequences = [self.sequences[index] for index in planned.demonstrations]
        if planned.pretraining_rows:
            assert self.cursor is not None
            sequences += [every_token_counts(row) for row in self.cursor.draw(planned.pretraining_rows).tolist()]
        return sequences

    def _microbatches(self, sequences: Sequence[TrainingSequence]) -> list[list[int]]:
        return my_microbatches([sequence.tokens for sequence in sequences], self.runtime.tokens_per_microbatch)

    def _cuts(self, sequences: Sequence[TrainingSequence]) -> list[Cut]:
        """This rank's; with dropout ranks divide the microbatches of one process, whose masks they then draw."""
        ranks = here()
        adapter = self.config.adapter
        if ranks.count == 1 or not (self.config.residual_dropout or (adapter and adapter.dropout)):
            return [Cut(rows) for rows in self._microbatches(sequences)]
        cut = microbatches([sequence.tokens for sequence in sequences], self.runtime.tokens_per_microbatch)
        return [Cut(rows, number % ranks.count == ranks.number) for number, rows in enumerate(cut)]

    def _batch(self, sequences: Sequence[TrainingSequence]) -> TokenBatch:
        given, counted = [sequence.given for sequence in sequences], [sequence.counted for sequence in sequences]
        return pad_batch(given, counted, self.pad_id).to(self.model.device)

    def _summed_nll(self, sequences: Sequence[TrainingSequence]) -> Tensor:
        batch = self._batch(sequences)
        with autocast(self.runtime):
            logprobs = response_logprobs(self.model, batch, 1.0)
        return summed_nll(logprobs, batch.response_mask)

    def _idle(self) -> Tensor:
        return self._summed_nll([TrainingSequence([0], [])])

    def _draw_dropout(self, sequences: Sequence[TrainingSequence]) -> None:
        """Draw what reading them in training draws."""
        adapter, probability = self.config.adapter, self.config.residual_dropout
        if (
            adapter and adapter.dropout
        ):  # drawn at every matrix that has an adapter: reading is the way to know how often
            with torch.no_grad():
                self._summed_nll(sequences)
            return
        with autocast(self.runtime):
            draw_residual_dropout(self.model, self._batch(sequences), probability, self.dropout_draws)

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        adapter = self.config.adapter
        with (
            residual_dropout(self.model, self.config.residual_dropout, self.dropout_draws),
            adapter_dropout(self.model, adapter.dropout if adapter else 0.0, self.dropout_draws),
        ):
            yield

    def _best_epoch(self) -> int:
        return pick_checkpoint({epoch: -loss for epoch, loss in self.valid_losses.items()})

    def _close_epoch(self, epoch: int) -> dict[str, float]:
        if self.keep_epoch is not None:
            self.keep_epoch(epoch, whole(self.model))
        if not self.valid:
            return {}
        self.valid_losses[epoch] = self.validation_loss()
        if self.config.selection == "validation_loss" and self._best_epoch() == epoch:
            self.best_weights = {
                name: value.detach().cpu().clone() for name, value in trained_state(self.model).items()
            }
        return {"valid/loss": self.valid_losses[epoch]}


def _check_data(
    demonstrations: Sequence[Demonstration],
    documents: Sequence[Document],
    valid: Sequence[Demonstration],
    config: SFTConfig,
) -> None:
    if not demonstrations:
        raise DataError("demonstrations: found none in the train split, expected at least one; check data_prep")
    if config.pretraining_fraction and not documents:
        raise DataError(
            f"pretraining_fraction is {config.pretraining_fraction} but the data holds no pretraining documents; "
            "give documents (data_prep.files.documents), or set ppo_init.pretraining_fraction=0 and sft.pretraining_fraction=0"
        )
    if config.selection != "last" and not valid:  # reward_model samples on their prompts, in the second pass
        raise DataError(
            f"selection is {config.selection!r} but the valid split holds no demonstrations; "
            "give some, or use selection=last"
        )
