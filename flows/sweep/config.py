"""What makes one point of a sweep better than another."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.engine.config import Config

Quality = Literal["win_rate", "score"]
Cost = Literal["kl", "regression"]


class SweepConfig(Config):
    """How the points of a sweep are weighed; read by sweeps alone."""

    judges: list[str] = Field(min_length=1)
    """Judges of quality in order of preference; the first that judged every finished point is used."""
    quality: Quality
    """What is maximised: the win rate against SFT at the evaluation's temperature, or the judge's mean score."""
    costs: list[Cost] = Field(min_length=1)
    """What is minimised: KL to the policy PPO started from (nats per response), benchmark regression (share)."""
    regression_against: Literal["sft", "base"]
    """Whose benchmark mean counts as no regression."""
    max_regression: float = Field(ge=0, le=1)
    """The best point may lose at most this share of benchmark items; 0.01 is one point."""
    returns: list[Quality | Cost] = Field(min_length=1)
    """What a point returns to a sweeper that optimises, one value per direction."""

    @model_validator(mode="after")
    def _once_each(self) -> "SweepConfig":
        for name in ("judges", "costs", "returns"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: {values} names something twice")
        return self

    @property
    def directions(self) -> list[str]:
        """Optuna's direction of each value in ``returns``."""
        return ["maximize" if name in ("win_rate", "score") else "minimize" for name in self.returns]
