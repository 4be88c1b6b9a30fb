"""The knobs of direct preference optimisation."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.engine.config import AdamConfig, AdapterConfig, Config
from tasks.records.choices import Margin


class DPOConfig(Config):
    """One DPO run on the reward model's comparisons, from PPO's start and with PPO's reference (Rafailov et al. 2023)."""

    beta: float = Field(gt=0)
    """Price of leaving the reference: the implicit reward of a completion is beta times its log-ratio."""
    loss: Literal["sigmoid", "ipo"]
    """DPO's logistic loss, or the squared distance to a fixed gap (Azar et al. 2023)."""
    label_smoothing: float = Field(ge=0, lt=0.5)
    """Share of labels taken to be wrong (conservative DPO); 0 for ipo, which has no such term."""
    margin: Margin
    """How far apart the implicit rewards of a pair should be: rank asks for more the more places lie between the two (none
    between neighbours, then 1/3, 2/3 and 1); none for the sigmoid alone. ipo has a target of its own."""
    adam: AdamConfig
    """Optimizer; its learning rate is the peak, reached at once: there is no warm-up."""
    epochs: int = Field(gt=0)
    """Passes over the comparisons."""
    batch_size: int = Field(gt=0)
    """Prompts per optimizer step, each with all its strictly ordered pairs; every prompt weighs the same."""
    final_lr_fraction: float = Field(ge=0, le=1)
    """The cosine ends at this fraction of the peak learning rate."""
    trained_on: Literal["all", "first_half", "second_half"]
    """Which of the training comparisons are used; the halves are the reward model's."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included."""
    adapter: AdapterConfig | None
    """Thin matrices that are trained instead of the weights; null trains every weight."""
    seed: int
    """Order of the comparisons."""

    @model_validator(mode="after")
    def _smoothing_is_read(self) -> "DPOConfig":
        if self.loss == "ipo" and self.label_smoothing > 0:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing:g} and loss is ipo, which has no label smoothing; "
                "set label_smoothing=0 or loss=sigmoid"
            )
        if self.loss == "ipo" and self.margin != "none":
            raise ValueError(
                f"margin is {self.margin} and loss is ipo, whose target 1 / (2 beta) is a margin already; set margin=none or "
                "loss=sigmoid"
            )
        return self
