"""Pretraining text as rows of equal length, and a cursor that draws them.

InstructGPT mixes pretraining data into PPO-init and PPO without saying how it was cut (appendices C.3, C.4). Ours:
documents follow one another, each closed by EOS, in rows that are full; a row may begin in the middle of a
document.
"""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.engine.errors import DataError

DOCUMENTS = 1000
"""Encoded at a time."""


def pack_documents(token_lists: Iterable[Sequence[int]], row_tokens: int, eos_id: int) -> Tensor:
    """Join documents with EOS and cut the stream into full rows.

    Args:
        token_lists: one list of token ids per document, without EOS; empty documents are skipped.
        row_tokens: length L of a row.
        eos_id: id that closes every document.

    Returns:
        (N, L) int64. The incomplete last row is dropped.

    Raises:
        DataError: when the documents do not fill a single row.
    """
    stream = array("q")
    for tokens in token_lists:
        if tokens:
            stream.extend(tokens)
            stream.append(eos_id)
    rows = len(stream) // row_tokens
    if rows == 0:
        raise DataError(
            f"pretraining documents: {len(stream)} tokens do not fill one row of {row_tokens}; "
            "give more text or a smaller row_tokens"
        )
    return torch.frombuffer(stream, dtype=torch.long, count=rows * row_tokens).view(rows, row_tokens)


class RowCursor:
    """Draws rows in passes: every row once per pass, each pass in a fresh order.

    The order comes from the cursor's own generator, so two cursors over the same rows never disturb each other.
    """

    def __init__(self, rows: Tensor, generator: torch.Generator) -> None:
        if rows.ndim != 2 or rows.shape[0] == 0:
            raise DataError(f"pretraining rows: expected shape (N, L) with N > 0, found {tuple(rows.shape)}")
        self.rows = rows  # (N, L)
        self._generator = generator
        self._order = torch.randperm(rows.shape[0], generator=generator)
        self._position = 0

    def draw(self, count: int) -> Tensor:
        """The next rows, (count, L); passes follow one another without a gap."""
        taken = []
        while count > 0:
            if self._position == len(self._order):
                self._order = torch.randperm(self.rows.shape[0], generator=self._generator)
                self._position = 0
            part = self._order[self._position : self._position + count]
            self._position += len(part)
            count -= len(part)
            taken.append(part)
        return self.rows[torch.cat(taken)] if taken else self.rows[:0]

    def state_dict(self) -> dict[str, Any]:
        """The current pass, the place in it, and the generator of the passes to come."""
        return {"generator": self._generator.get_state(), "order": self._order, "position": self._position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state_dict`` on the same rows.

        Raises:
            DataError: the state belongs to another number of rows.
        """
        if len(state["order"]) != self.rows.shape[0]:
            raise DataError(
                f"checkpoint: its row order has {len(state['order'])} rows, the data has {self.rows.shape[0]}; "
                "delete the checkpoint to start this stage afresh"
            )
        self._generator.set_state(state["generator"])
        self._order = state["order"]
        self._position = int(state["position"])


def encode_documents(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Iterator[list[int]]:
    """Token ids of each document, without special tokens, some at a time; ``pack_documents`` adds EOS."""
    texts = iter(texts)
    while some := list(islice(texts, DOCUMENTS)):
        # What is not asked for here would be made all the same, in half of the time.
        encoded = tokenizer(some, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False)
        yield from encoded["input_ids"]
