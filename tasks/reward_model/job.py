"""What cross-validation over groups of labelers is configured with."""

from typing import Any

from pydantic import Field

from tasks.engine.config import Config
from tasks.engine.inputs import path_fields
from tasks.reward_model.config import RewardModelConfig


class AcrossLabelersJob(Config):
    """How many groups, and how each reward model is trained."""

    labeler_folds: int = Field(ge=2)
    """Groups of labelers, each held out once."""
    reward_model: RewardModelConfig
    """Training of each fold's model."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The files of the reward model's body stand in for its path."""
        return {"labeler_folds": self.labeler_folds, "reward_model": self.reward_model.fingerprint_fields()}

    def tracked_params(self, group: str) -> dict[str, Any]:
        """Both, spelled as on the command line."""
        return self.model_dump(mode="json")


class QuestionsJob(Config):
    """Which questions a reward model is asked, and how they are laid out."""

    file: str
    """JSONL in RewardBench 2's layout."""
    prompt_layout: str
    """As data_prep.prompt_layout: the questions are laid out like the data."""
    prompt_tokens: int = Field(gt=0)
    """Longest prompt."""
    response_tokens: int = Field(gt=0)
    """Longest answer, EOS included."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The file's content stands in for its path."""
        return self.model_dump(mode="json") | {"file": path_fields(self.file)}

    def tracked_params(self, group: str) -> dict[str, Any]:
        """As on the command line."""
        return {"reward_questions": self.file}
