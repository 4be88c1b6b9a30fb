"""Data preparation as one job: what to read, how to clean it, and the tokenizer that measures it."""

from pathlib import Path
from typing import Any

from tasks.data_prep.config import DataPrepConfig
from tasks.engine.config import Config, ModelConfig
from tasks.engine.inputs import folder_fields, model_fields


class DataPrepJob(Config):
    """Configuration of the ``data_prep`` stage together with the model whose tokenizer it uses."""

    data_prep: DataPrepConfig
    """Sources, splits, cleaning."""
    model: ModelConfig
    """Only its tokenizer is read here."""
    documents_for: list[str]
    """Knobs of later stages that need pretraining documents: without any, this is the place to say so."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Every input file counts by its content, not by its path; the model's shape does not count."""
        fields = self.data_prep.fingerprint_fields()
        folder = fields.pop("folder", None)
        tokenizer = model_fields(self.model)
        for unread in ("architecture", "context_tokens"):
            tokenizer.pop(unread)
        for role in (fields.get("hub") or {}).values():
            if isinstance(role, dict) and Path(str(role.get("name"))).expanduser().is_dir():
                role["name"] = folder_fields(role["name"])
        files = folder_fields(folder) if folder else {}
        return {"data_prep": fields, "files": files, "tokenizer": tokenizer}

    @property
    def calls_the_world(self) -> bool:
        """Which writes its records."""
        return self.data_prep.source == "sandbox"

    def tracked_params(self, group: str) -> dict[str, Any]:
        """Both groups, spelled as on the command line."""
        return self.model_dump(mode="json", exclude={"documents_for"})
