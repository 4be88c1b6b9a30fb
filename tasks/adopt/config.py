"""Which model folder to adopt."""

from typing import Any

from tasks.engine.config import Config
from tasks.engine.inputs import folder_fields


class AdoptJob(Config):
    """A causal LM with its tokenizer, or a reward model with its scalar head."""

    folder: str
    """Hugging Face folder; weights must be safetensors."""
    knob: str
    """Key of the configuration that names the folder."""
    kind: str
    """policy or model: the name of the folder inside the artifact."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """The folder counts by its content, not by its path."""
        return {"files": folder_fields(self.folder), "kind": self.kind}

    def tracked_params(self, group: str) -> dict[str, Any]:
        """Spelled as on the command line."""
        return {self.knob: self.folder}
