"""The knobs of supervised fine-tuning; ``conf/sft`` and ``conf/ppo_init`` both fill this class."""

from typing import Literal

from pydantic import Field

from tasks.engine.config import AdamConfig, AdapterConfig, Config


class SFTConfig(Config):
    """One supervised fine-tuning: the baseline (InstructGPT C.1) or the policy PPO starts from (C.3)."""

    adam: AdamConfig
    """Optimizer; its learning rate is the peak, reached at once: there is no warm-up."""
    epochs: int = Field(gt=0)
    """Passes over the demonstrations; each in a fresh order."""
    batch_size: int = Field(gt=0)
    """Sequences per optimizer step: demonstrations and pretraining rows together."""
    final_lr_fraction: float = Field(ge=0, le=1)
    """The cosine ends at this fraction of the peak learning rate."""
    residual_dropout: float = Field(ge=0, lt=1)
    """Dropout on what each block adds to the residual stream, while training only."""
    pretraining_fraction: float = Field(ge=0, lt=1)
    """Probability that a slot of a batch holds a pretraining row; an epoch counts demonstrations only."""
    row_tokens: int = Field(gt=1)
    """Length of a pretraining row (read only when pretraining_fraction > 0)."""
    mask_prompt: bool
    """True counts the completion and its EOS; false counts the prompt's tokens too."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included; longer demonstrations are cut there."""
    selection: Literal["last", "validation_loss", "reward_model"]
    """Which epoch's weights are the result: the last, the one with the lowest loss on validation demonstrations, or
    the one whose samples the reward model scores highest (InstructGPT's way; needs a reward model, so it is a
    second pass)."""
    adapter: AdapterConfig | None
    """Thin matrices that are trained instead of the weights; null trains every weight."""
    seed: int
    """Order of the demonstrations, places and choice of pretraining rows, dropout."""
