"""What the arithmetic of a dry run cannot find out without data and models at hand."""

from typing import Any

from pydantic import Field

from tasks.engine.config import Config


class DryRunConfig(Config):
    """Sizes that are declared rather than counted. Read by ``--dry-run`` only: no stage depends on them."""

    demonstrations: int | None = Field(ge=1)
    """Training demonstrations; null counts them in the data."""
    comparisons: int | None = Field(ge=1)
    """Ranked training prompts of the reward model; null counts them in the data."""
    rl_prompts: int | None = Field(ge=1)
    """Training prompts of PPO; null counts them in the data."""
    policy: dict[str, Any] | None
    """Shape of the base model as a Hugging Face configuration with its model_type; read when model.name_or_path is no
    folder yet."""
    reward_model: dict[str, Any] | None
    """The same for reward_model.body."""
    card_gib: float = Field(gt=0)
    """Memory of one accelerator to compare with, in GiB."""
    card_tflops: float = Field(gt=0)
    """What its data sheet gives for products in the run's precision, in TFLOP/s; read where torch sees no GPU."""
    card_gb_s: float = Field(gt=0)
    """The same of its memory, in GB/s."""
