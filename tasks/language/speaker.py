"""The one way to answer prompts: whoever samples from a policy does it here, at the precision that the runtime asks for."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.engine.config import RuntimeConfig
from tasks.language.generation import Sampled, sample
from tasks.language.precision import autocast
from tasks.language.room import Room, sampling_room

NO_TOKEN = -1
"""An EOS id that sampling never meets."""


class Speaker:
    """A model that answers.

    Args:
        model: causal language model; its mode is put back afterwards.
        tokenizer: its EOS ends an answer.
        runtime: precision, and how many prompts are answered side by side.
        ends: False samples every answer to its full length, past any EOS.
        room: of an earlier speaker, that knows how many prompts fit side by side.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        runtime: RuntimeConfig,
        *,
        ends: bool = True,
        room: Room | None = None,
    ) -> None:
        self.model, self.runtime = model, runtime
        self.eos_id, self.pad_id = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
        self._stop = self.eos_id if ends else NO_TOKEN
        self._room = room or sampling_room()

    def answer(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator | None = None,
    ) -> list[list[int]]:
        """One response to each prompt, EOS kept; ``generator`` may be left out at temperature 0, where nothing is drawn."""
        assert generator is not None or temperature == 0, "an answer that is drawn needs a generator"
        generator = generator or torch.Generator()
        return self.sample(
            prompts, max_new_tokens=max_new_tokens, temperature=temperature, generator=generator
        ).responses

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        generator: torch.Generator,
        with_statistics: bool = False,
    ) -> Sampled:
        """The same with what the model thought of each token."""
        with autocast(self.runtime):
            return sample(
                self.model,
                prompts,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                generator=generator,
                eos_id=self._stop,
                pad_id=self.pad_id,
                batch_size=self.runtime.generation_batch,
                with_statistics=with_statistics,
                room=self._room,
            )

    def ended(self, response: Sequence[int]) -> bool:
        """Whether a response ended by itself instead of being cut off."""
        return bool(response) and response[-1] == self.eos_id
