"""Chat layouts: a conversation as the text that a chat model was trained on, written by the tokenizer's own template.

Made here and nowhere else: fine-tuning, reward model, PPO, evaluation, release and ``flows.chat`` show a model the same bytes.
What stands before an answer is a prompt like any other; the answer follows it directly and ends with the template's
end-of-turn token.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from tasks.engine.errors import ModelError

if TYPE_CHECKING:  # configurations read records, and should be answered before anything heavy is imported
    from transformers import PreTrainedTokenizerBase

Role = Literal["system", "user", "assistant"]
PROBE = "plumbline"
"""An answer that no template writes by itself."""


class Turn(NamedTuple):
    """One message of a conversation."""

    role: Role
    content: str


class ChatLayout:
    """A tokenizer's chat template, tried before it is used.

    Args:
        tokenizer: with a ``chat_template``.
        system: message that opens every conversation without one of its own; None leaves it to the template.

    Raises:
        ModelError: the template fails, takes no system message although one is given, changes what stands before an answer
            once the answer is there, or ends answers with a text that is no token.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", system: str | None = None) -> None:
        self._tokenizer, self._system = tokenizer, system
        self._check()

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Everything that stands before the answer to the last turn."""
        return self._render(turns, answer_follows=True)

    def conversation(self, turns: Sequence[Turn], answer: str) -> str:
        """The turns and the answer to the last of them, with everything that the template writes behind it."""
        return self._render([*turns, Turn("assistant", answer)], answer_follows=False)

    @cached_property
    def end_of_turn(self) -> str:
        """The token that ends an answer."""
        asked = [Turn("user", PROBE)]
        behind = self._render([*asked, Turn("assistant", PROBE)], answer_follows=False).rpartition(PROBE)[2]
        if not behind.strip():  # some templates leave the end to EOS
            return str(self._tokenizer.eos_token)
        tokens = {str(token) for token in self._tokenizer.all_special_tokens}
        tokens |= {str(token) for token in self._tokenizer.get_added_vocab()}
        found = [token for token in tokens if behind.lstrip().startswith(token)]
        if not found:
            raise self._unusable(
                f"it ends an answer with {behind!r}", "one token that ends a turn, such as <|im_end|> or </s>"
            )
        return max(found, key=len)

    def _check(self) -> None:
        asked = [Turn("user", "one")]
        for turns in (asked, [*asked, Turn("assistant", "two"), Turn("user", "three")]):
            before = self.prompt(turns)
            whole = self._render([*turns, Turn("assistant", PROBE)], answer_follows=False)
            if PROBE not in whole:
                raise self._unusable("it leaves out what the assistant says", "the answer in the text")
            if not whole.startswith(before) or whole[len(before) :].lstrip(" ").partition(PROBE)[0]:
                raise self._unusable(
                    f"it writes {before[-40:]!r} before an answer, and something else once the answer is there",
                    "the same text before and after",
                )
        assert self.end_of_turn

    def _render(self, turns: Sequence[Turn], *, answer_follows: bool) -> str:
        if self._system is not None and (not turns or turns[0].role != "system"):
            turns = [Turn("system", self._system), *turns]
        try:
            text = self._tokenizer.apply_chat_template(
                [turn._asdict() for turn in turns], tokenize=False, add_generation_prompt=answer_follows
            )
        except Exception as error:  # whatever a template's own code raises
            if turns[0].role == "system":
                raise self._unusable(
                    f"it takes no system message ({next(iter(str(error).splitlines()), 'no reason')})",
                    "one that does; leave the system message out",
                ) from error
            raise self._unusable(
                f"it fails ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'})",
                f"a text for the roles {', '.join(turn.role for turn in turns)}",
            ) from error
        return str(text)

    def _unusable(self, found: str, expected: str) -> ModelError:
        return ModelError(
            f"chat template of {self._tokenizer.name_or_path or type(self._tokenizer).__name__}: {found}, expected "
            f'{expected}; mend the template, or train with a layout of your own: data_prep.prompt_layout="{{prompt}}"'
        )


def has_template(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer brings a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))
