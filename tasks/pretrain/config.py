"""The knobs of pretraining a base model from scratch."""

from pydantic import Field, model_validator

from tasks.engine.config import AdamConfig, Config


class PretrainConfig(Config):
    """Next-token training on packed documents; a model that is adopted from a folder takes zero steps."""

    steps: int = Field(ge=0)
    """Optimizer steps; 0 keeps the model as it is."""
    batch_rows: int = Field(gt=0)
    """Rows per optimizer step."""
    row_tokens: int = Field(gt=1)
    """Length of a row; documents are joined by EOS and cut into full rows."""
    adam: AdamConfig
    """Optimizer; its learning rate is the peak."""
    warmup_steps: int = Field(ge=0)
    """The learning rate rises linearly over this many steps."""
    final_lr_fraction: float = Field(ge=0, le=1)
    """The cosine ends at this fraction of the peak learning rate."""
    valid_every: int = Field(gt=0)
    """Steps between two measurements of the validation loss; the last step always measures it."""
    seed: int
    """Initial weights and order of the rows."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> "PretrainConfig":
        if self.steps and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps ({self.warmup_steps}) must be smaller than steps ({self.steps})")
        return self
