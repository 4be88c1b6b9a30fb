"""What it takes to talk with a policy: how many tokens it reads, and which of them end its turn."""

import sys
from typing import Any

from tasks.language.chat_layout import ChatLayout
from tasks.language.types import PreTrainedModel, PreTrainedTokenizerBase


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
