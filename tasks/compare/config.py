"""How measured policies are compared, and what the page shows."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.compare.judges.config import PairJudgesConfig
from tasks.engine.config import Config


class CompareConfig(Config):
    """The comparison of all policies of a run, from their sheets."""

    tie_margin: dict[Literal["gold", "reward_model"], float]
    """Scores that differ by at most this much are a tie, per judge, in that judge's points."""
    bootstrap_samples: int = Field(gt=99)
    """Bootstrap replicates behind every interval."""
    confidence: float = Field(gt=0.5, lt=1)
    """Coverage of every interval."""
    judges: PairJudgesConfig
    """Who decides pairs of responses, and how length is taken out."""
    samples_in_report: int = Field(ge=0)
    """Test prompts shown with all responses side by side, drawn by seed."""
    seed: int = Field(ge=0)
    """Seed of bootstrap and of the choice of samples."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Files count by their content, not by their path."""
        return super().fingerprint_fields() | {"judges": self.judges.fingerprint_fields()}

    @model_validator(mode="after")
    def _margins(self) -> "CompareConfig":
        if set(self.tie_margin) != {"gold", "reward_model"}:
            raise ValueError(f"tie_margin names {sorted(self.tie_margin)}; expected gold and reward_model")
        if min(self.tie_margin.values()) < 0:
            raise ValueError(f"tie_margin holds {min(self.tie_margin.values())}; a margin is at least 0")
        return self
