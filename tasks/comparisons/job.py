"""What the two stages of collecting comparisons are configured with, in the first round and in later ones."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tasks.comparisons.config import ComparisonsConfig, SamplingConfig
from tasks.engine.config import Config
from tasks.engine.inputs import folder_fields
from tasks.language.seeds import derived_seed
from tasks.records import labels


class RoundNumber(Config):
    """Which round of a run."""

    round: int = Field(ge=1)
    """1 samples from the SFT policy; each later round from the policy of the one before it."""

    def seed(self, first: int) -> int:
        """The seed of this round."""
        return first if self.round == 1 else derived_seed(first, "round", self.round)


class SamplingJob(RoundNumber):
    """Draw responses, and keep them apart from their rankings."""

    sampling: SamplingConfig
    """How many, how long, of which prompts."""
    policy: str
    """Name of the policy that writes them."""

    def tracked_params(self, group: str) -> dict[str, Any]:
        """Spelled as on the command line."""
        return {"comparisons": self.sampling.model_dump(mode="json")}


class ComparisonsJob(RoundNumber):
    """Have responses ranked, or take rankings that were given."""

    comparisons: ComparisonsConfig
    """Who ranks what."""
    policy: str
    """Name of the policy whose responses are ranked."""

    @property
    def stage(self) -> str:
        """Beginning of the batch's name."""
        return "comparisons" if self.round == 1 else f"comparisons-round_{self.round}"

    def fingerprint_fields(self) -> dict[str, Any]:
        """The labelers' own fields, and the round."""
        return {**self.comparisons.fingerprint_fields(), "round": self.round, "policy": self.policy}

    def tracked_params(self, group: str) -> dict[str, Any]:
        """Spelled as on the command line."""
        return {"comparisons": self.comparisons.model_dump(mode="json")}

    def batch_id(self, candidates: str) -> str:
        """Name of the batch that people are asked: another one whenever anything in it would be another.

        Args:
            candidates: digest of the responses.
        """
        asked = self.fingerprint_fields()
        asked["people"] = {name: value for name, value in asked.get("people", {}).items() if name != "enough"}
        text = json.dumps([candidates, asked], sort_keys=True)
        return f"{self.stage}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def fields_that_grow(self, home: Path, inputs: Mapping[str, str]) -> dict[str, Any]:
        """The labels that people have given so far: new labels, new comparisons."""
        if "people" not in self.comparisons.labelers or "candidates" not in inputs:
            return {}
        folder = labels.batch_folder(home, self.batch_id(inputs["candidates"]))
        return {"labels": folder_fields(str(folder / labels.FOLDER))}
