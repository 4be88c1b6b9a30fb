"""What the tokenizer says of a record: its tokens, and whether it fits.

Source: InstructGPT appendix C: prompts up to 1k tokens, responses up to 1k.
"""

import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from tasks.data_prep.split import prompt_of
from tasks.language.text import encode_responses, encode_whole_prompts
from tasks.language.types import PreTrainedTokenizerBase
from tasks.language.vocabulary import special_tokens
from tasks.records.records import Comparison, Demonstration, Prompt, turns_of


class Limits(NamedTuple):
    """Longest prompt and longest response in tokens; a response's EOS counts."""

    prompt: int
    response: int


class Measured(NamedTuple):
    """Tokens of a record's prompt and of each of its responses."""

    prompt: int
    responses: list[int]
    unknown_of_prompt: int
    """Tokens that the vocabulary does not know."""
    unknown_of_responses: int


def responses_of(record: Prompt | Demonstration | Comparison) -> list[str]:
    """The responses in a record, if any."""
    if isinstance(record, Demonstration):
        return [record.response]
    return record.completions if isinstance(record, Comparison) else []


class Ruler:
    """Measures records."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limits: Limits) -> None:
        self._tokenizer, self._limits = tokenizer, limits
        # Named ones (eos_token) and unnamed ones, such as the <|im_start|> of a chat layout: both are read as one token.
        special = sorted(special_tokens(tokenizer), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)))
        unknown = tokenizer.unk_token_id
        self._unknown = None if unknown == tokenizer.eos_token_id else unknown

    def measure(self, records: Sequence[Prompt | Demonstration | Comparison]) -> list[Measured]:
        """Tokens of the prompt and of each response with its EOS, of some records at once."""
        texts = [prompt_of(record).text for record in records]
        answers = [responses_of(record) for record in records]
        before = [text for text, own in zip(texts, answers, strict=True) for _ in own]
        responses = iter(encode_responses(self._tokenizer, [answer for own in answers for answer in own], before))
        measured = []
        for prompt, own in zip(encode_whole_prompts(self._tokenizer, texts), answers, strict=True):
            said = list(islice(responses, len(own)))
            unknown = sum(map(self._count_unknown, said))
            measured.append(Measured(len(prompt), list(map(len, said)), self._count_unknown(prompt), unknown))
        return measured

    def _count_unknown(self, ids: list[int]) -> int:
        return 0 if self._unknown is None else ids.count(self._unknown)

    def objection(self, record: Prompt | Demonstration | Comparison, measured: Measured) -> str | None:
        """The rule that a record breaks: too long, or a special token spelled out in its text; None if it may stay.

        The text is the one before the layout, which may write special tokens itself.
        """
        if measured.prompt > self._limits.prompt:
            return "long_prompt"
        if any(length > self._limits.response for length in measured.responses):
            return "long_response"
        asked = [turn.content for turn in turns_of(prompt_of(record))]
        return "special_token" if self.spells_special_token(*asked, *responses_of(record)) else None

    def spells_special_token(self, *texts: str) -> bool:
        """Whether a text contains a special token: the tokenizer would read "<eos>" in a text as a response's end."""
        return any(self._special.search(text) for text in texts)
