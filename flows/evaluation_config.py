"""The group ``evaluation`` of ``conf/``: one set of values on the command line, of which every stage gets its part."""

from pydantic import Field, model_validator

from tasks.compare.config import CompareConfig
from tasks.compare.judges.config import PairJudgesConfig
from tasks.gate.config import GateConfig
from tasks.measure.config import MeasureConfig, ScoreJudgesConfig


class JudgesConfig(ScoreJudgesConfig, PairJudgesConfig):
    """Judges beside the gold labeler (where there is one) and the reward model that was optimised."""


class EvaluationConfig(MeasureConfig, CompareConfig):
    """One evaluation of every policy of a run, on the same prompts and items."""

    judges: JudgesConfig
    """Who judges beside the gold labeler and the reward model, and how length is taken out."""
    gate: GateConfig
    """What a policy must reach before it is promoted; no figure depends on it."""
    seed: int = Field(ge=0)
    """Seed of sampling, of bootstrap and of the choice of samples."""

    @property
    def measured(self) -> MeasureConfig:
        """What the measurement of one policy reads."""
        return self.part(MeasureConfig).bare

    @property
    def measured_prompted(self) -> MeasureConfig:
        """What the measurement of the base model behind examples reads."""
        return self.part(MeasureConfig)

    @property
    def compared(self) -> CompareConfig:
        """What the comparison of all policies reads."""
        return self.part(CompareConfig)

    @model_validator(mode="after")
    def _complete(self) -> "EvaluationConfig":
        if self.gate.max_toxicity_change is not None and self.toxicity.scorer == "none":
            raise ValueError(
                f"gate.max_toxicity_change is {self.gate.max_toxicity_change} and toxicity.scorer is none; choose a scorer or "
                "set the limit to null"
            )
        return self
