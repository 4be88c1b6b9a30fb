"""What it takes to talk with a policy: how many tokens it reads, and which of them end its turn."""

import sys
from pathlib import Path
from typing import Any

from tasks.engine.errors import ModelError
from tasks.language.chat_layout import ChatLayout
from tasks.language.types import PreTrainedModel, PreTrainedTokenizerBase
from tasks.language.vocabulary import rows_for_text, rows_of

LOWEST, HIGHEST = 0.001, 100
"""Temperatures above 0: near 0, probabilities are no longer finite."""


def require_rows(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with words that the model has no embedding of.

    Raises:
        ModelError: how many there are.
    """
    known, needed = rows_of(model), rows_for_text(tokenizer)
    if known < needed:
        raise ModelError(
            f"{folder}: found {known} rows in its embedding and a tokenizer that gives text ids up to {needed - 1}, expected a "
            "row for every id; give the tokenizer that it was trained with"
        )


def context_of(model: PreTrainedModel) -> int:
    """Tokens that the model reads and writes together."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize)


def ends_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layout: ChatLayout | None) -> set[int]:
    """Ids of the tokens any of which ends an answer: EOS, what the model itself names, and the end of a turn."""
    known: Any = getattr(model.generation_config, "eos_token_id", None)
    ends = {int(tokenizer.eos_token_id), *(known if isinstance(known, list) else [known])} - {None}
    if layout is not None:
        ends.add(int(tokenizer.convert_tokens_to_ids(layout.end_of_turn)))
    return ends
