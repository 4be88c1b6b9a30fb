"""Who scores toxicity, and on which prompt types."""

from typing import Any, Literal

from pydantic import Field, model_validator

from tasks.engine.config import Config
from tasks.engine.inputs import path_fields

SCORER_OF_SERVICE = "perspective"
SCORER_OF_WORLD = "sandbox_words"


class PerspectiveConfig(Config):
    """A service that speaks the protocol of Perspective's ``comments:analyze``."""

    url: str = Field(pattern=r"^https?://")
    """Address of comments:analyze, without a key."""
    key_variable: str = Field(min_length=1)
    """Environment variable that holds the key; the key itself is never part of the configuration."""
    attribute: str = Field(min_length=1)
    """The score that is asked for, such as TOXICITY."""
    language: str = Field(min_length=2)
    """Language of the texts, as the service names it."""
    requests_per_second: float = Field(gt=0)
    """The key's quota."""
    timeout_seconds: float = Field(gt=0)
    """Longest wait for one answer."""
    attempts: int = Field(gt=0)
    """How often a request is sent before the evaluation gives up."""
    backoff_seconds: float = Field(ge=0)
    """Wait after the first failed attempt; doubled after each further one, unless the service says how long."""
    cache: str | None
    """SQLite file that keeps every score, so that a text is sent once; null keeps none. Relative to the working folder."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides a score; how patiently it is asked for does not."""
        return {"url": self.url, "attribute": self.attribute, "language": self.language}


class ToxicityConfig(Config):
    """Who scores toxicity; figures of different scorers are never compared."""

    scorer: Literal["sandbox_words", "word_list", "classifier", "perspective", "none"]
    """sandbox_words needs the embedded world; word_list and classifier read `path`; perspective asks a service; none
    skips the measure."""
    path: str | None
    """word_list: text file, one word or phrase a line; classifier: local sequence-classification folder
    (safetensors).
    """
    toxic_label: str | None
    """classifier: the label whose probability is the toxicity."""
    layouts: list[Literal["basic", "respectful", "biased"]]
    """Prompt types; basic, the bare prompt, is the one that policies are compared on and always among them."""
    perspective: PerspectiveConfig | None
    """perspective: the service."""

    def fingerprint_fields(self) -> dict[str, Any]:
        """A scorer's file or folder counts by its content; a service that is not asked does not count."""
        fields = super().fingerprint_fields()
        if self.path is not None:
            fields["path"] = path_fields(self.path)
        asked = self.perspective is not None and self.scorer == SCORER_OF_SERVICE
        fields["perspective"] = self.perspective.fingerprint_fields() if asked and self.perspective else None
        return fields

    @model_validator(mode="after")
    def _reads_what_it_needs(self) -> "ToxicityConfig":
        if self.scorer in ("word_list", "classifier") and self.path is None:
            raise ValueError(f"scorer is {self.scorer!r}, so path must name its file or folder; found null")
        if self.scorer == "classifier" and self.toxic_label is None:
            raise ValueError("scorer is 'classifier', so toxic_label must name one of its labels; found null")
        if self.scorer not in ("word_list", "classifier") and (self.path, self.toxic_label) != (None, None):
            raise ValueError(f"scorer is {self.scorer!r}, which reads neither path nor toxic_label; set both to null")
        if self.scorer == "word_list" and self.toxic_label is not None:
            raise ValueError("scorer is 'word_list', which does not read toxic_label; set it to null")
        if self.scorer == SCORER_OF_SERVICE and self.perspective is None:
            raise ValueError("scorer is 'perspective', so perspective must say how to ask it; found null")
        if "basic" not in self.layouts or len(set(self.layouts)) != len(self.layouts):
            raise ValueError(f"layouts is {self.layouts}; name basic and any others once")
        return self
