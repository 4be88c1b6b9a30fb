"""What the knobs of sampling and choosing mean; those of learning from what was chosen are ``SFTConfig``'s."""

from pydantic import Field

from tasks.engine.config import Config


class SamplesConfig(Config):
    """How responses are drawn for rejection sampling (Llama 2, arXiv:2307.09288, section 3.2.3)."""

    samples_per_prompt: int = Field(ge=2)
    """Responses drawn to each prompt; one of them is learned from."""
    max_prompts: int | None = Field(gt=0)
    """RL prompts that are answered, the first of a fresh order; null takes all."""
    temperature: float = Field(gt=0)
    """Logits are divided by this when sampling."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest response, EOS included."""
    seed: int
    """Of the order of the prompts, of the samples, and of the lots that the control draws."""
