"""Response, critique, revision: one conversation a prompt, asked step by step for all prompts side by side."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tasks.chat.endpoint import Messages, messages_of
from tasks.chat.model import ChatModel
from tasks.engine.errors import JudgeError
from tasks.language.seeds import named_random
from tasks.revise.config import Principle, ReviseConfig

KNOB = "revise.chat"
WITHOUT = "leave the stage out with revise.prompts=0"
Step = tuple[str, int]
"""A prompt, and which request of its conversation."""


class Revised(NamedTuple):
    """What came of one prompt."""

    first: str
    """The response before any critique."""
    critiques: list[str]
    revisions: list[str]


def revise(prompts: Mapping[str, str], model: ChatModel[Step], config: ReviseConfig) -> dict[str, Revised]:
    """Prompt's id -> its revisions; a prompt that is left without an answer at one of the steps is missing.

    Args:
        prompts: id -> text, as people read it.
        model: responds, criticises and revises.
        config: principles and passes.

    Raises:
        JudgeError: the endpoint refuses key or model, or too many prompts are left.
    """
    talks = {name: messages_of(config.system, text) for name, text in prompts.items()}
    answers: dict[str, list[str]] = {name: [] for name in prompts}
    for step in range(1 + 2 * config.passes):
        if step:
            for name, talk in talks.items():
                talks[name] = [*talk, {"role": "user", "content": _request(name, step, config)}]
        found = _ask(talks, step, len(prompts), model, config)
        talks = {name: [*talks[name], {"role": "assistant", "content": text}] for name, text in found.items()}
        for name, text in found.items():
            answers[name].append(text)
    return {name: Revised(answers[name][0], answers[name][1::2], answers[name][2::2]) for name in talks}


def principle(name: str, number: int, config: ReviseConfig) -> Principle:
    """The one that is drawn for a prompt's critique and the revision after it."""
    return named_random(config.seed, f"principle/{name}/{number}").choice(config.principles)


def _request(name: str, step: int, config: ReviseConfig) -> str:
    drawn = principle(name, (step + 1) // 2, config)
    return drawn.critique if step % 2 else drawn.revision


def _ask(
    talks: Mapping[str, Messages], step: int, prompts: int, model: ChatModel[Step], config: ReviseConfig
) -> dict[str, str]:
    before, allowed = prompts - len(talks), config.max_lost_share * prompts

    def too_many(lost: int) -> JudgeError | None:
        if before + lost <= allowed:
            return None
        reasons = ", ".join(f"{reason} {count} times" for reason, count in model.failures.most_common())
        return JudgeError(
            f"{KNOB}: at least {before + lost} of {prompts} prompts are left without a revision ({reasons}), more than "
            f"revise.max_lost_share ({config.max_lost_share:g}) allows; look at the endpoint {config.chat.base_url}. Answers "
            "that were given are kept on disk, so the next run asks only for the others"
        )

    answers = model.ask(
        {(name, step): talk for name, talk in talks.items()}, lambda _, text: bool(text.strip()), too_many
    )
    texts = {name: answer.text.strip() for (name, _), answer in answers.items() if answer is not None}
    return {name: texts[name] for name in talks if name in texts}


def changed(revised: Sequence[Revised]) -> float:
    """Share of the prompts whose last revision is another text than the first response."""
    return sum(one.revisions[-1] != one.first for one in revised) / len(revised)
