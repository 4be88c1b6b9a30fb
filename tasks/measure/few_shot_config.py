"""What stands before every test prompt of a model that is prompted instead of trained."""

from typing import Any

from pydantic import Field, model_validator

from tasks.engine.config import Config
from tasks.engine.inputs import path_fields


class FewShotConfig(Config):
    """InstructGPT's opponent "GPT-3, prompted": the base model behind worked examples."""

    examples: int = Field(ge=0)
    """Demonstrations of the training split, drawn by the seed; before each prompt come as many of them as the model reads."""
    file: str | None
    """Text file that comes before every prompt instead, to the letter; null for none."""

    @property
    def asked(self) -> bool:
        """Whether anything comes before a prompt."""
        return self.examples > 0 or self.file is not None

    def fingerprint_fields(self) -> dict[str, Any]:
        """A file counts by its content, not by its path."""
        fields = super().fingerprint_fields()
        return fields if self.file is None else fields | {"file": path_fields(self.file)}

    @model_validator(mode="after")
    def _one_source(self) -> "FewShotConfig":
        if self.examples and self.file is not None:
            raise ValueError(f"examples is {self.examples} and file is {self.file}; set examples=0 or file=null")
        return self
