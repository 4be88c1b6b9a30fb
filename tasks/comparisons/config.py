"""The knobs of collecting comparisons."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.engine.config import Config


class ComparisonsConfig(Config):
    """Several responses per prompt, ranked by labelers (InstructGPT sections 3.4 and 3.5)."""

    source: Literal["sample_and_label", "given"]
    """sample_and_label draws from the SFT policy and asks the simulated labelers; given takes the rankings in the
    data."""
    completions_min: int = Field(ge=2)
    """Fewest responses drawn per prompt."""
    completions_max: int = Field(ge=2)
    """Most responses drawn per prompt; K is uniform between the two."""
    temperature: float = Field(gt=0)
    """Sampling temperature of the policy that is compared."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included."""
    max_prompts: int = Field(gt=0)
    """Training prompts that are compared; the first so many are used."""
    max_valid_prompts: int = Field(gt=0)
    """Validation prompts that are compared."""
    agreement_prompts: int = Field(ge=0)
    """Validation prompts that every labeler ranks, to measure how far labelers agree."""
    held_out_labeler_share: float = Field(ge=0, lt=1)
    """Source given: share of the labelers whose rankings are never trained on (the sandbox has a held-out panel
    instead)."""
    seed: int
    """Number of responses, sampling, who labels what, labelers' noise."""

    @model_validator(mode="after")
    def _range(self) -> "ComparisonsConfig":
        if self.completions_min > self.completions_max:
            raise ValueError(
                f"completions_min ({self.completions_min}) must not exceed completions_max ({self.completions_max})"
            )
        if self.agreement_prompts > self.max_valid_prompts:
            raise ValueError(
                f"agreement_prompts ({self.agreement_prompts}) must not exceed "
                f"max_valid_prompts ({self.max_valid_prompts})"
            )
        return self
