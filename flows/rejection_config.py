"""The group ``rejection_sampling`` of ``conf/``: one set of values, of which each of its two stages gets a part."""

from pydantic import model_validator

from tasks.rejection_sampling.config import SamplesConfig
from tasks.sft.config import SFTConfig


class RejectionSamplingConfig(SamplesConfig, SFTConfig):
    """Draw several responses to each prompt, choose one, learn from it."""

    seed: int
    """Of the samples, and of the order in which they are learned from."""

    @property
    def samples(self) -> SamplesConfig:
        """What drawing and choosing read."""
        return self.part(SamplesConfig)

    @property
    def fine_tuning(self) -> SFTConfig:
        """What learning from the chosen responses reads."""
        return self.part(SFTConfig)

    @model_validator(mode="after")
    def _one_pass(self) -> "RejectionSamplingConfig":
        if self.selection == "reward_model":
            raise ValueError(
                "selection is reward_model, and only the SFT baseline has a second pass (paper C.1); set selection=last or "
                "validation_loss"
            )
        return self
