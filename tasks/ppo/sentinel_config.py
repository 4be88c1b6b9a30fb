"""What the knobs of the over-optimisation sentinel mean; their values live in ``conf/ppo``."""

from pydantic import Field

from tasks.engine.config import Config


class SentinelConfig(Config):
    """Who watches a PPO run, and what counts as a warning.

    Every rule compares means over ``window`` iterations; "the start" is the first window of the run. A rule is off
    when its limit is null. Rules read the run's statistics and change no weight.
    """

    every: int = Field(ge=0)
    """Iterations from one scoring by the held-out judges (gold labeler, independent reward model) to the next; 0 never
    asks them."""
    window: int = Field(gt=0)
    """Iterations behind each mean; of held-out scores, scorings (see ``every``)."""
    early_stop: bool
    """End the training with the iteration that brings the first warning."""
    held_out_fall: float | None = Field(gt=0)
    """over_optimisation_<judge>: the held-out judge's score has fallen this far below its best window while the
    optimised score has risen; in standard deviations of that judge's scores at the start."""
    kl_per_iteration: float | None = Field(gt=0)
    """kl_speed: nats per response that the KL gains per iteration."""
    entropy_left: float | None = Field(gt=0, lt=1)
    """entropy_collapse: entropy per token below this share of the start's."""
    length_factor: float | None = Field(gt=1)
    """length_drift: responses this many times longer or shorter than at the start."""
    bigrams_left: float | None = Field(gt=0, lt=1)
    """repetition_within: the share of a response's bigrams that differ is below this share of the start's."""
    most_common_share: float | None = Field(gt=0, lt=1)
    """repetition_across: one and the same response is given to this share of the iteration's episodes."""
    eos_rate: float | None = Field(gt=0, lt=1)
    """eos_rate: fewer responses than this share end by themselves."""
