"""The knobs of demonstrations by critique and revision."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.chat.config import ChatModelConfig
from tasks.engine.config import Config


class Principle(Config):
    """One principle, as the two requests that it is made of."""

    critique: str
    """Asks what is wrong with a response."""
    revision: str
    """Asks for a better one."""


class ReviseConfig(Config):
    """Supervised stage of Constitutional AI (Bai et al. 2022, section 3): response, critique, revision; the last revision of
    each prompt is a demonstration."""

    prompts: int = Field(ge=0)
    """Training prompts that are answered so, the first ones; 0 leaves the stage out."""
    prompts_from: Literal["rl_prompts", "comparison_prompts"]
    """Role of these prompts; only the embedded world has comparison_prompts."""
    passes: int = Field(ge=1)
    """Critiques and revisions of each response, one after another; each draws a principle."""
    principles: list[Principle] = Field(min_length=1)
    """By what to criticise and revise."""
    system: str
    """System message of every conversation; empty sends none."""
    chat: ChatModelConfig
    """Which model responds, criticises and revises."""
    response_tokens: int = Field(gt=0)
    """Revisions with more tokens, EOS included, are left out."""
    max_lost_share: float = Field(ge=0, lt=1)
    """The stage fails when a larger share of the prompts is left without a revision."""
    seed: int
    """Which principle is drawn for which critique."""

    @model_validator(mode="after")
    def _has_a_model(self) -> "ReviseConfig":
        if self.prompts and not self.chat.model:
            raise ValueError(
                f"prompts is {self.prompts} and chat.model is not given; set revise.chat.model, or revise.prompts=0"
            )
        return self
