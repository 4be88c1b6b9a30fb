"""What the tokenizer says of a record: its tokens, and whether it fits.

Source: InstructGPT appendix C: prompts up to 1k tokens, responses up to 1k.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from tasks.language.chat_layout import Turn
from tasks.language.text import encode_prompt, encode_response
from tasks.language.vocabulary import special_tokens
from tasks.records.records import Comparison, Demonstration, Prompt


class Limits(NamedTuple):
    """Longest prompt and longest response in tokens; a response's EOS counts."""

    prompt: int
    response: int


class Measured(NamedTuple):
    """Tokens of a record's prompt and of each of its responses."""

    prompt: int
    responses: list[int]


def responses_of(record: Prompt | Demonstration | Comparison) -> list[str]:
    """The responses in a record, if any."""
    if isinstance(record, Demonstration):
        return [record.response]
    return record.completions if isinstance(record, Comparison) else []


class Ruler:
    """Measures records; each text is tokenized once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
        self._tokenizer, self._limits = tokenizer, limits
        # Named ones (eos_token) and unnamed ones, such as the <|im_start|> of a chat layout: both are read as one token.
        special = sorted(special_tokens(tokenizer), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)))
        self._prompts: dict[str, int] = {}
        self.tokens = self.unknown = 0

    def measure(self, record: Prompt | Demonstration | Comparison) -> Measured:
        """Tokens of the prompt and of each response with its EOS."""
        text = (record if isinstance(record, Prompt) else record.prompt).text
        if text not in self._prompts:
            self._prompts[text] = len(self._count(encode_prompt(self._tokenizer, text, 4 * len(text) + 8)))
        responses = [encode_response(self._tokenizer, response, text) for response in responses_of(record)]
        return Measured(self._prompts[text], [len(self._count(ids)) for ids in responses])

    def _count(self, ids: list[int]) -> list[int]:
        self.tokens += len(ids)
        if self._tokenizer.unk_token_id is not None and self._tokenizer.unk_token_id != self._tokenizer.eos_token_id:
            self.unknown += ids.count(self._tokenizer.unk_token_id)
        return ids

    @property
    def unknown_share(self) -> float:
        """Share of the tokens measured so far that the vocabulary does not know."""
        return self.unknown / max(1, self.tokens)

    def objection(
        self, record: Prompt | Demonstration | Comparison, measured: Measured, turns: Sequence[Turn] = ()
    ) -> str | None:
        """The rule that a record breaks: too long, or a special token spelled out in its text; None if it may stay.

        Args:
            record: to judge.
            measured: its tokens.
            turns: its prompt before the layout, which may write special tokens itself; empty where there was no layout.
        """
        if measured.prompt > self._limits.prompt:
            return "long_prompt"
        if any(length > self._limits.response for length in measured.responses):
            return "long_response"
        prompt = record if isinstance(record, Prompt) else record.prompt
        asked = [turn.content for turn in turns] or [prompt.text]
        return "special_token" if self.spells_special_token(*asked, *responses_of(record)) else None

    def spells_special_token(self, *texts: str) -> bool:
        """Whether a text contains a special token: the tokenizer would read "<eos>" in a text as a response's end."""
        return any(self._special.search(text) for text in texts)
