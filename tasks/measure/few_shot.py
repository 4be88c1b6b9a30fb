"""The base model as a policy without training: a few worked examples come before every prompt.

Source: InstructGPT section 3.5, "GPT-3 (prompted)": a prefix that brings the model into the mode of following instructions.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.engine.errors import ConfigError
from tasks.language.seeds import named_random
from tasks.language.text import encode_prompt, encode_response
from tasks.language.types import PreTrainedTokenizerBase
from tasks.measure.few_shot_config import FewShotConfig
from tasks.records.records import Demonstration


class FewShot(NamedTuple):
    """What comes before a prompt."""

    examples: list[list[int]]
    """Whole sequences as fine-tuning reads them, EOS included, so that the model sees how an answer ends."""
    text: str
    """Or text to the letter."""

    def before(
        self, texts: Sequence[str], encoded: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase, room: int
    ) -> list[list[int]]:
        """Every prompt with what comes before it: the last examples that fit together with the prompt, or the whole text.

        Args:
            texts: the prompts.
            encoded: the same as tokens.
            tokenizer: of the model.
            room: tokens that the model reads before its response.

        Raises:
            ConfigError: no prompt has room for an example, or a prompt has none for the text.
        """
        if self.text:
            asked = [encode_prompt(tokenizer, self.text + text, sys.maxsize) for text in texts]
            if (longest := max(map(len, asked), default=0)) > room:
                raise ConfigError(
                    f"evaluation.few_shot.file: with it the longest prompt has {longest} tokens, expected at most {room}, what "
                    "the model reads before its response; shorten the file"
                )
            return asked
        counts = self.fitting(encoded, room)
        if self.examples and not any(counts):
            raise ConfigError(
                f"evaluation.few_shot.examples: no prompt leaves room for an example (the last one has {len(self.examples[-1])} "
                f"tokens, and the model reads {room} before its response); set evaluation.few_shot.examples=0"
            )
        return [
            [*(token for example in self.examples[len(self.examples) - count :] for token in example), *prompt]
            for count, prompt in zip(counts, encoded, strict=True)
        ]

    def fitting(self, encoded: Sequence[list[int]], room: int) -> list[int]:
        """How many examples come before each prompt."""
        found = []
        for prompt in encoded:
            left, count = room - len(prompt), 0
            for example in reversed(self.examples):
                left -= len(example)
                if left < 0:
                    break
                count += 1
            found.append(count)
        return found


NOTHING = FewShot([], "")
"""A policy that was trained to answer is asked as it is."""


def few_shot(
    config: FewShotConfig,
    demonstrations: Sequence[Demonstration],
    tokenizer: PreTrainedTokenizerBase,
    lengths: tuple[int, int],
    seed: int,
) -> FewShot:
    """Examples drawn from demonstrations, or the text of a file; ``lengths`` are the longest prompt and response of one.

    Raises:
        ConfigError: the file cannot be read or is empty, or there are fewer demonstrations than asked for.
    """
    if not config.asked:
        return NOTHING
    if config.file is not None:
        return FewShot([], read_prefix(config.file))
    if len(demonstrations) < config.examples:
        raise ConfigError(
            f"evaluation.few_shot.examples: found {len(demonstrations)} demonstrations, expected at least {config.examples}"
        )
    drawn = named_random(seed, "few shot").sample(list(demonstrations), config.examples)
    return FewShot([_sequence(tokenizer, example, *lengths) for example in drawn], "")


def read_prefix(path: str) -> str:
    """The text of a prefix's file.

    Raises:
        ConfigError: it cannot be read, or contains nothing.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"evaluation.few_shot.file: cannot read {path} ({error}); give a UTF-8 text file") from error
    if not text.strip():
        raise ConfigError(
            f"evaluation.few_shot.file: {path} is empty; write what comes before a prompt, or set it to null"
        )
    return text


def _sequence(tokenizer: PreTrainedTokenizerBase, example: Demonstration, prompt: int, response: int) -> list[int]:
    asked = encode_prompt(tokenizer, example.prompt.text, prompt)
    return asked + encode_response(tokenizer, example.response, example.prompt.text)[:response]
