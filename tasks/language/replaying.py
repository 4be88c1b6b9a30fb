"""How sampling reads on an accelerator: the work of one token is recorded once and replayed, without Python in between.

On a GPU a token of a small model is hundreds of kernels of microseconds each, and starting them one by one takes many times
as long as they run. What is recorded reads and writes the same memory every time: tokens, positions, the newest column. A
recording attends to all columns up to a multiple of ``COLUMNS``, those to come hidden; it is made anew beyond it, and where
rows are taken out.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tasks.language.decoding import PackedReader, PaddedReader, RowLayer
from tasks.language.families import packs

logger = logging.getLogger("plumbline")

COLUMNS = 64
WORTH = 8
"""Tokens that a recording must serve; it takes the time of two or three."""
NEAR = 1e-2
"""Largest difference between a replayed and a usual state in a trial, as a share of the largest number."""
Step = Callable[[], Tensor]


def graph(step: Step) -> Step:
    """The same as a CUDA graph; ``step`` has run before, so that nothing is allocated or chosen for the first time."""
    recording = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recording, capture_error_mode="thread_local"):
        states = step()

    def again() -> Tensor:
        recording.replay()
        return states

    return again


RECORDERS: dict[str, Callable[[Step], Step]] = {"cuda": graph}
"""Kind of device -> what records there."""
_trusted: dict[type, bool] = {}
"""Trunk -> whether its replays were right in this process."""


def reader_of(
    trunk: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> PackedReader | PaddedReader:
    """What reads prompts and new tokens of this family on its device."""
    if not packs(trunk):
        return PaddedReader(trunk, prompts, max_new_tokens)
    reader = ReplayedReader if trunk.device.type in RECORDERS else PackedReader
    return reader(trunk, prompts, max_new_tokens)


class ReplayedReader(PackedReader):
    """Reads as ``PackedReader`` does; a state that ``read`` returned lasts until it is called again."""

    def __init__(self, trunk: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        super().__init__(trunk, prompts, max_new_tokens)
        self.end = max(self.lengths)  # columns that have been written
        self.capacity = self.end + max_new_tokens
        self.newest = torch.tensor([self.end - 1], device=trunk.device)
        self.tokens = torch.zeros_like(self.positions)
        self.shown = 0  # columns that are attended to; 0 before the first token, and when rows were taken out
        self.again: Step = self._step

    def _layer(self, *args: Any) -> RowLayer:
        return _FixedLayer(self, *args)

    def read(self, tokens: Tensor) -> Tensor:  # (B,) -> (B, D)
        """Final hidden states after one more token in every row."""
        self.tokens.copy_(tokens)
        self.positions += 1
        self.newest += 1
        self.end += 1
        if self.end <= self.shown:
            return self.again()
        self.shown = min(self.capacity, -(-self.end // COLUMNS) * COLUMNS)
        states = self._step()
        self.again = self._recorded(states) if self.shown - self.end >= WORTH else self._step
        return states

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows."""
        super().keep(rows)
        self.tokens, self.shown = self.tokens[rows], 0

    def _step(self) -> Tensor:
        to_come = torch.arange(self.shown, device=self.newest.device) > self.newest
        if self.hidden is None:
            hidden = torch.zeros(1, 1, 1, self.shown, device=self.newest.device).masked_fill_(to_come, -torch.inf)
        else:
            hidden = self.hidden[..., : self.shown].masked_fill(to_come, -torch.inf)
        return self._forward(self.tokens, hidden, newest=self.newest)

    def _recorded(self, expected: Tensor) -> Step:
        """A recording of the step just made, or the step itself where it cannot be recorded."""
        kind = type(self.trunk)
        if not _trusted.get(kind, True):
            return self._step
        try:
            again = RECORDERS[self.newest.device.type](self._step)
            if kind not in _trusted:
                off = float((again() - expected).abs().max() / expected.abs().max())
                _trusted[kind] = off <= NEAR
                why = "" if _trusted[kind] else f"replayed, its states are {off:.0%} off"
        except RuntimeError as error:
            _trusted[kind], why = False, str(error).strip().partition("\n")[0][:120]
        if _trusted[kind]:
            return again
        logger.info("sampling: the work of a token of %s is started anew each time: %s", kind.__name__, why)
        return self._step


class _FixedLayer(RowLayer):
    """One layer's keys and values, which lie where they are; which column is written, a tensor says."""

    def __init__(self, reader: ReplayedReader, *args: Any) -> None:
        super().__init__(*args)
        self.reader = reader

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As ``RowLayer``'s, but that (B, G, T, d) has columns to come."""
        if not self.is_initialized:
            return super().update(key_states, value_states)
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store.index_copy_(2, self.reader.newest, states.to(store.dtype))
        keys, values = (store[:, :, : self.reader.shown] for store in self.stores)
        return keys, values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, columns to come included: what is hidden is read, if for nothing."""
        self.stores = [store[indices] for store in self.stores]
