"""The base model as one job: what it is and how it is trained."""

from typing import Any

from tasks.engine.config import Config, ModelConfig
from tasks.engine.inputs import model_fields
from tasks.pretrain.config import PretrainConfig


class PretrainJob(Config):
    """Configuration of the ``pretrain`` stage together with the model it makes."""

    pretrain: PretrainConfig
    """Training of a model built from scratch."""
    model: ModelConfig
    """The model."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The model's files stand in for its path."""
        return {"pretrain": self.pretrain.fingerprint_fields(), "model": model_fields(self.model)}

    def tracked_params(self, group: str) -> dict[str, Any]:
        """Both groups, spelled as on the command line."""
        return self.model_dump(mode="json")
