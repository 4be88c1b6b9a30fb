"""A chat model that several threads ask at once: questions that wait while it answers are answered together."""

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

from tasks.engine.errors import DataError, ModelError
from tasks.engine.inputs import folder_fields
from tasks.language.chat_layout import ChatLayout, Turn, has_template
from tasks.language.conversation import context_of, ends_of, require_rows
from tasks.language.generation import Sampled, sample
from tasks.language.models import load_policy
from tasks.language.room import sampling_room
from tasks.language.seeds import named_generator
from tasks.language.text import encode_prompt
from tasks.language.tokenizer import load_tokenizer


class ChatQuestion(NamedTuple):
    """One question, as the model reads it."""

    prompt: tuple[int, ...]
    tokens: int
    """Longest answer."""
    temperature: float


class ChatAnswer(NamedTuple):
    """One answer."""

    text: str
    tokens: int
    ended: bool
    """Whether it ended by itself instead of being cut off."""


class Respondent:
    """A model and the questions that wait for it.

    Args:
        folder: Hugging Face model folder, with a chat template.
        device: to run on.
        together: most questions answered side by side.
        seed: of the answers that are drawn.

    Raises:
        ModelError: the folder holds no policy, or no chat template that can be used.
    """

    def __init__(self, folder: Path, device: str, together: int, seed: int) -> None:
        self.name = f"{folder.resolve().name}-{_digest(folder)[:8]}"
        """What it is asked for by. Other weights have another name, so answers that were kept are never those of another."""
        self._model, self._tokenizer = load_policy(folder, device).eval(), load_tokenizer(folder)
        require_rows(folder, self._model, self._tokenizer)
        if not has_template(self._tokenizer):
            raise ModelError(
                f"{folder}: found no chat template, expected one; without it, nothing tells how a conversation is written. Serve "
                "a model that was fine-tuned for chat"
            )
        self._layout = ChatLayout(self._tokenizer)
        self._ends = ends_of(self._model, self._tokenizer, self._layout)
        self._together, self._room = together, sampling_room()
        self._draws = named_generator(seed, "serve")
        self._door, self._turn = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[ChatQuestion, Future[ChatAnswer]]] = []

    def asked(self, turns: Sequence[Turn], tokens: int | None, temperature: float) -> ChatQuestion:
        """A conversation as a question; without ``tokens`` the answer may fill the context.

        Raises:
            ModelError: the template takes no such conversation.
            DataError: conversation and answer do not fit the context.
        """
        text = self._layout.prompt(turns)
        prompt, context = encode_prompt(self._tokenizer, text, 4 * len(text) + 8), context_of(self._model)
        longest = tokens or min(context - len(prompt), context // 2)
        if longest < 1 or len(prompt) + longest > context:
            raise DataError(
                f"found {len(prompt)} tokens of conversation and {longest} of answer, expected at most the model's context of "
                f"{context}; ask with less"
            )
        return ChatQuestion(tuple(prompt), longest, temperature)

    def answer(self, asked: ChatQuestion) -> ChatAnswer:
        """The answer, drawn side by side with those that are waited for meanwhile.

        Raises:
            PlumblineError: one row alone does not fit the memory.
        """
        mine: Future[ChatAnswer] = Future()
        with self._door:
            self._waiting.append((asked, mine))
        with self._turn:  # one batch at a time; whoever is in turn answers for others too
            if not mine.done():
                self._answer_with((asked, mine))
        return mine.result()

    def _answer_with(self, first: tuple[ChatQuestion, "Future[ChatAnswer]"]) -> None:
        with self._door:
            self._waiting.remove(first)
            alike = [one for one in self._waiting if one[0][1:] == first[0][1:]]
            batch = [first, *alike[: self._together - 1]]
            self._waiting = [one for one in self._waiting if one not in batch]
        try:
            answers = self._answers([asked for asked, _ in batch])
        except Exception as error:  # whoever asked is told
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), answered in zip(batch, answers, strict=True):
            future.set_result(answered)

    def _answers(self, batch: Sequence[ChatQuestion]) -> list[ChatAnswer]:
        drawn: Sampled = sample(
            self._model,
            [asked.prompt for asked in batch],
            max_new_tokens=batch[0].tokens,
            temperature=batch[0].temperature,
            generator=self._draws,
            eos_id=int(self._tokenizer.convert_tokens_to_ids(self._layout.end_of_turn)),
            pad_id=int(self._tokenizer.pad_token_id),
            batch_size=self._together,
            with_statistics=False,
            room=self._room,
        )
        return [self._read(response) for response in drawn.responses]

    def _read(self, response: Sequence[int]) -> ChatAnswer:
        end = next((at for at, token in enumerate(response) if token in self._ends), None)
        text: str = self._tokenizer.decode(
            response[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        half = "\ufffd" if end is None else ""  # what was cut off may end within a character
        return ChatAnswer(text.rstrip(half or None).strip(), len(response[:end]), end is not None)


def _digest(folder: Path) -> str:
    return hashlib.sha256(json.dumps(folder_fields(str(folder)), sort_keys=True).encode()).hexdigest()
