"""Rewards that are reward models: of token ids, or of texts that are tokenised again."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tasks.engine.config import RuntimeConfig
from tasks.engine.errors import ModelError
from tasks.engine.stage import Workshop
from tasks.language.chat_layout import ChatLayout, has_template
from tasks.language.classifier import load_classifier
from tasks.language.inspect import context_of
from tasks.language.loading import HEAD_FILE
from tasks.language.models import ScalarModel
from tasks.language.plain_layout import BARE, Layout, PlainLayout
from tasks.language.scorer import score_rows
from tasks.language.text import encode_prompt, encode_response
from tasks.language.tokenizer import add_pad_token, load_tokenizer
from tasks.records.records import Prompt, turns_of
from tasks.rewards.config import RewardModelPart

MEMBER = re.compile(r"reward_model_(\d+)")
LONGEST = 1 << 30
"""Tokens of a prompt for a model whose positions have no end."""


def own_reward_models(shop: Workshop) -> list[ScalarModel]:
    """The run's own reward model, and the other members of its ensemble: inputs ``reward_model``, ``reward_model_2``, ..."""
    names = [
        "reward_model",
        *sorted((name for name in shop.inputs if MEMBER.fullmatch(name)), key=lambda name: int(name[13:])),
    ]
    return [ScalarModel.load(shop.input(name) / "model", shop.runtime.device).requires_grad_(False) for name in names]


class ModelReward:
    """A reward model in a folder, with a tokenizer and a layout of its own; the policy's may be others.

    One that this program trained reads the request, the answer and its end-of-turn token; any other with a chat template reads
    the whole conversation as the template writes it.

    Raises:
        ModelError: no reward model, or no tokenizer beside it.
    """

    def __init__(self, part: RewardModelPart, runtime: RuntimeConfig) -> None:
        assert part.folder is not None, "the run's own reward model is scored by its token ids"
        self.name, self._runtime = part.name, runtime
        folder = Path(part.folder).expanduser()
        self._tokenizer = load_tokenizer(folder)
        self._ours = (folder / HEAD_FILE).is_file()
        self._chat: ChatLayout | None = None
        if part.prompt_layout is None and has_template(self._tokenizer):
            self._chat = ChatLayout(self._tokenizer)
            self._tokenizer.eos_token = self._chat.end_of_turn
            add_pad_token(self._tokenizer)
        self._layout: Layout = self._chat or (PlainLayout(part.prompt_layout) if part.prompt_layout else BARE)
        load = ScalarModel.load if self._ours else load_classifier
        self._model = load(folder, runtime.device).eval().requires_grad_(False)
        self._context = context_of(self._model.backbone.config) or LONGEST

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str], finished: Sequence[bool]) -> Tensor:
        """(B,) The model's scores of the texts.

        Raises:
            ModelError: a response alone is longer than what the model reads.
        """
        read = [self._read(*row) for row in zip(prompts, responses, finished, strict=True)]
        asked, answered = [ids for ids, _ in read], [ids for _, ids in read]
        found = score_rows(self._model, asked, answered, int(self._tokenizer.pad_token_id), self._runtime)
        return torch.tensor(found, device=self._runtime.device)

    def _read(self, prompt: Prompt, response: str, finished: bool) -> tuple[list[int], list[int]]:
        turns = turns_of(prompt)
        before = self._layout.prompt(turns)
        if self._chat is not None and not self._ours:
            behind = self._chat.conversation(turns, response)[len(before) :]
            answer = self._tokenizer(behind, add_special_tokens=False)["input_ids"]
        else:
            answer = encode_response(self._tokenizer, response, before)
            answer = answer if finished else answer[:-1] or answer
        room = self._context - len(answer)
        if room < 1:
            raise ModelError(
                f"ppo.rewards: part {self.name}: a response has {len(answer)} tokens of its tokenizer and the model reads "
                f"{self._context}, expected room for a prompt too; lower data_prep.response_tokens or choose another model"
            )
        return encode_prompt(self._tokenizer, before, room), answer
