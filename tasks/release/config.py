"""What a release is told beside its artifacts."""

from typing import Any

from tasks.engine.config import Config

POLICY = "policy"
"""Folder of the model in the artifact."""


class ReleaseJob(Config):
    """The policy of one run, to be described."""

    title: str
    """Heading of the card."""
    base_model: str
    """Hub name of the model that training started from; empty for a local folder or a model built from scratch."""
    settings: dict[str, Any]
    """The run's configuration without runtime and tracking: with it the same policy can be trained again."""

    def tracked_params(self, group: str) -> dict[str, Any]:
        """The settings are the pipeline run's parameters already."""
        return {"release": {"title": self.title}}
